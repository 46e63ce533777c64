# SPDX-License-Identifier: Apache-2.0
"""Certificates that live a minute: devices renew them by themselves, under a running flow."""
import json
import re
import subprocess
import socket

import pytest
from harness import SALLY, Net, echo_server, wait_for


@pytest.fixture(scope="module")
def short():
    net = Net(controller_options="--certificate-life 60")
    try:
        yield net
    finally:
        net.close()


def certificate(device):
    return json.loads((device.dir / "identity.json").read_text())["id"]["cert"]


def ping(flow):
    flow.sendall(b"ping")
    return flow.recv(4) == b"ping"


def test_a_flow_runs_through_renewals_of_both_its_ends(short):
    with echo_server() as target:
        server, pump = short.device("server"), short.device("pump", ["sensors"])
        short.expose(target, "plant", server, "#sensors")
        port = pump.forward("plant")
        first = {d: certificate(d) for d in (server, pump)}
        with socket.create_connection(("127.0.0.1", port)) as flow:
            flow.settimeout(10)

            def renewed_twice():
                assert ping(flow)
                return all(len(re.findall("identity.renewed", d.log())) >= 2 for d in (server, pump))

            # Two renewals are due after some 90 s; by then the first certificates are over.
            wait_for(renewed_twice, seconds=180, what="two renewals at both ends")
            assert ping(flow)
        for d in (server, pump):
            assert certificate(d) != first[d]
            assert d.log().count("sdk.online") == 1, "no lane was made again"
            # The file is what the next start uses.
            d.stop()
            d.start()
        wait_for(lambda: pump.sees("plant"), what="services with the kept certificate")
        actions = [row["action"] for row in short.audit()]
        assert actions.count("certificate.renew") >= 4 and actions.count("certificate.used") >= 4
        assert short.sally("audit", "verify")[0]["ok"] is True


def test_a_device_that_slept_over_the_end_of_its_certificate_comes_back(short):
    device = short.device("sleeper")
    first = certificate(device)
    device.stop()
    # Two minutes at most: a certificate here lives 60 s.
    wait_for(lambda: short.sally("cert", "list", "sleeper") == [], seconds=120, what="the certificate's end")
    device.start()
    assert certificate(device) != first
    assert "sdk.recovered" in device.log()
    recovered = [row for row in short.audit() if row["action"] == "certificate.renew" and row["subject"] == device.id]
    assert any(row["detail"]["door"] == "recovery" for row in recovered)
    # One that was removed meanwhile stays out.
    device.stop()
    wait_for(lambda: short.sally("cert", "list", "sleeper") == [], seconds=120, what="the certificate's end")
    short.sally("device", "rm", "sleeper", "--yes")
    last = certificate(device)
    device.process = subprocess.Popen([SALLY, "supervise", "--dir", str(device.dir)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: "code=pki.identity_inactive" in short.log("controller"), what="the refusal in the log")
    assert certificate(device) == last and not device.status().get("online")
    assert any(row["action"] == "certificate.renew_refused" and row["detail"]["code"] == "pki.identity_inactive" for row in short.audit())
