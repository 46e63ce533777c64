# SPDX-License-Identifier: Apache-2.0
"""API sessions of the Go SDK over time: they slide, end, are ended, and the certificate under them changes."""
import json
import signal
import subprocess

import pytest
import ziti
from harness import Net, wait_for

LIFE = 60  # the least; a session really ends a minute later


@pytest.fixture(scope="module")
def net():
    network = Net(controller_options=f"--session-life {LIFE}")
    yield network
    network.close()


def sessions_of(net, name):
    return net.sally("session", "list", name)


def test_a_session_slides_and_one_that_slept_too_long_is_made_again(net, apps):
    ziti.add_service(net, "thing", "none", allow=["#sleepers"], host=["#hosts"])
    awake, asleep = (apps.add(name, ["sleepers"], "-refresh", "10m") for name in ("awake", "asleep"))
    for app in (awake, asleep):
        app.ask("login")
    (first,) = sessions_of(net, "awake")
    asleep.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: not sessions_of(net, "asleep"), 2 * LIFE + 60, "what is not refreshed is forgotten", every=1)
    assert [s["id"] for s in sessions_of(net, "awake")] == [first["id"]], "the SDK refreshes it"
    asleep.process.send_signal(signal.SIGCONT)
    for app, logins in ((awake, 1), (asleep, 2)):
        assert [s["name"] for s in app.ask("services")["services"]] == ["thing"]
        assert len(app.events("logged-in")) == logins, app.said


def test_an_admin_ends_a_session_and_the_sdk_logs_in_again(net, apps):
    app = apps.add("ended", ["sleepers"])
    app.ask("login")
    (session,) = sessions_of(net, "ended")
    assert session["name"] == "ended" and session["address"].startswith("127.0.0.1")
    net.sally("session", "end", session["id"])
    assert sessions_of(net, "ended") == []
    app.ask("services")
    (fresh,) = sessions_of(net, "ended")
    assert fresh["id"] != session["id"]
    assert len(app.events("logged-in")) == 2


def serial_of(identity):
    chain = json.loads(identity.read_text())["id"]["cert"].removeprefix("pem:")
    out = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=chain, capture_output=True, text=True, check=True).stdout
    return out.strip().removeprefix("serial=").lower()


def test_the_next_certificate(net, apps):
    """The older one is good until the next is proven, and the session goes on."""
    old = apps.identity("growing", ["sleepers"])
    app, new = apps.run(old), old.with_name("extended.json")
    app.ask("extend", new)
    assert json.loads(new.read_text())["id"]["key"] == json.loads(old.read_text())["id"]["key"]
    state = {c["serial"].lstrip("0"): c["state"] for c in net.sally("cert", "list", "growing")}
    assert state == {serial_of(old).lstrip("0"): "active", serial_of(new).lstrip("0"): "unproven"}
    apps.run(old).ask("login")
    assert app.ask("identity")["name"] == "growing"
    state = {c["serial"].lstrip("0"): c["state"] for c in net.sally("cert", "list", "growing", "--all")}
    assert state == {serial_of(old).lstrip("0"): "superseded", serial_of(new).lstrip("0"): "active"}
    with pytest.raises(ziti.Refused):
        apps.run(old).ask("login", timeout=60)
    assert len(app.events("logged-in")) == 1
    apps.run(new).ask("login")
