# SPDX-License-Identifier: Apache-2.0
"""The Go SDK of Ziti for an hour: its session is refreshed every minute and its flow never ends."""
import os
import time

import harness
import pytest
import ziti

MINUTES = int(os.environ.get("SOAK_SESSION_MIN", "60"))


@pytest.fixture
def net():
    network = harness.Net(controller_options="--session-life 60")
    yield network
    network.close()


def test_an_hour_of_session_refreshes(net, tmp_path):
    with ziti.apps_of(net, tmp_path) as apps:
        ziti.add_service(net, "long", "compatible", allow=["#dialers"], host=["#hosts"])
        host, dialer = (apps.add(name, [f"{name}s"], "-refresh", "2h") for name in ("host", "dialer"))
        host.ask("host", "long", "echo")
        dialer.ask("hold", "long")
        sessions = sorted(s["id"] for s in net.sally("session", "list"))
        rounds = 0
        for _ in range(MINUTES):
            time.sleep(60)  # NOLINT(sally-sleep): the time that is measured
            assert sorted(s["id"] for s in net.sally("session", "list")) == sessions
            before, rounds = rounds, dialer.ask("flow", "long")["rounds"]
            assert rounds > before and not dialer.events("flow-ended")
        for app in (host, dialer):
            assert len(app.events("logged-in")) == 1 and not app.events("logged-out")
        print(f"{MINUTES} minutes, {rounds} rounds")
