# SPDX-License-Identifier: Apache-2.0
"""The demo is the acceptance test: what it claims, and that it leaves nothing behind."""
import glob
import json
import os
import signal
import socket
import subprocess
import threading

import pytest
from harness import SALLY, pids_of, wait_for


def leftovers():
    mine = [p for pids in pids_of("/tmp").values() for p in pids]
    return [p for p in mine if b"sally-demo-" in cmdline(p)]


def namespaces():
    """Network namespaces that any process is in."""
    found = set()
    for ns in glob.glob("/proc/[0-9]*/ns/net"):
        try:
            found.add(os.readlink(ns))
        except OSError:
            pass
    return found


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read()
    except OSError:
        return b""


def test_every_point_is_measured_and_holds():
    before, around = set(glob.glob("/tmp/sally-demo-*")), namespaces()
    run = subprocess.run([SALLY, "demo", "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    points = {p["id"]: p for p in report["points"]}
    assert report["pass"] is True and set(points) == {"dark", "mtls", "renew", "revoke", "deny"}
    assert all(p["pass"] for p in points.values())
    assert report["ready_ms"] < (30_000 if os.environ.get("SALLY_SANITIZED") else 5_000)
    dark = points["dark"]["measured"]
    assert dark["tcp_scanned"] == 65535 and dark["tcp_open"] == 0
    assert dark["udp_scanned"] == 200 and dark["udp_answered"] == 0
    assert dark["packets_dropped"] >= 65535 and dark["listening_off_loopback"] == 0 and dark["connections_not_dialed_by_us"] == 0
    assert dark["control_found_broker"] is True
    mtls = points["mtls"]["measured"]
    assert mtls["message_seen_on_the_wire"] == 0 and mtls["message_seen_on_loopback"] > 0 and mtls["tls13_handshakes_on_the_wire"] > 0
    renew = points["renew"]["measured"]
    assert renew["same_flow_goes_on"] is True and renew["connections_made_for_it"] == 0 and renew["certificate_before"] != renew["certificate_after"]
    revoke = points["revoke"]["measured"]
    assert revoke["enforced"].startswith("1 of 1 routers, 1 flows cut") and revoke["last_byte_after_answer_ms"] <= 1000
    assert points["deny"]["measured"]["exit_code"] == 4 and points["deny"]["measured"]["without_certificate_alert"] == 116
    wait_for(lambda: not leftovers(), what="no process left")
    wait_for(lambda: namespaces() <= around, what="no namespace left")
    assert set(glob.glob("/tmp/sally-demo-*")) == before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_end_in_the_middle_leaves_no_process(how):
    before, around = set(glob.glob("/tmp/sally-demo-*")), namespaces()
    demo = subprocess.Popen([SALLY, "demo"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert "ready in" in demo.stdout.readline()
    demo.send_signal(how)
    status = demo.wait(40)
    demo.stdout.close()
    wait_for(lambda: not leftovers(), seconds=15, what="no process left")
    wait_for(lambda: namespaces() <= around, seconds=15, what="no namespace left")
    rest = set(glob.glob("/tmp/sally-demo-*")) - before
    if how == signal.SIGINT:
        assert not rest
        assert status == 130
    for folder in rest:  # nobody was left to remove it
        subprocess.run(["rm", "-rf", folder], check=True)


def test_the_scanner_finds_what_is_open():
    """The control of the control: on this machine's loopback the same scanner sees exactly what we open, TCP and UDP."""
    tcp = socket.create_server(("127.0.0.7", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.7", 5683))

    def answer():
        while True:
            try:
                udp.sendto(b"here", udp.recvfrom(2048)[1])
            except OSError:
                return  # closed

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        out = json.loads(subprocess.run([SALLY, "scan", "127.0.0.7"], capture_output=True, check=True, timeout=60).stdout)
        assert tcp.getsockname()[1] in out["tcp_open"]
        assert 5683 in out["udp_answered"] and out["udp_scanned"] == 200
    finally:
        tcp.close()
        udp.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
            wake.sendto(b"", ("127.0.0.7", 5683))
        thread.join(5)


@pytest.mark.parametrize("what", ["cert", "clock"])
def test_what_was_made_wrong_is_refused_by_name(what):
    run = subprocess.run([SALLY, "demo", "--json", "break", what], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert [p["id"] for p in report["points"]] == [f"break-{what}"] and report["pass"] is True
