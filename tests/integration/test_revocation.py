# SPDX-License-Identifier: Apache-2.0
"""Revocation and suspension on four routers: what is cut, how fast, and that nothing brings it back."""
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import BIN, Admin, Failed, Net, echo_server, sally, wait_for
from revocations import Sitting, quantile
from test_policy import credentials, open_flow, seconds_until_cut


@pytest.fixture(scope="module")
def four():
    net = Net()
    try:
        for i in range(2, 5):
            net.router(f"router-{i}")
        assert len(net.routers_online()) == 4
        yield net
    finally:
        net.close()


@pytest.fixture(scope="module")
def echo():
    with echo_server() as port:
        yield port


def addresses(net):
    return [f"127.0.0.1:{net.router_port}", *(r.address for r in net.routers)]


def serial(net, name):
    return next(c["serial"] for c in net.sally("device", "show", name)[0]["certificates"] if not c["revoked_at"])


def flow_again(device, service):
    """A flow, as soon as the device is back: its new card comes a moment after its lane."""
    wait_for(lambda: device.status().get("online"), seconds=30, what=f"{device.name} on line again")
    port = device.forward(service)

    def flow():
        try:
            return open_flow(port)
        except (OSError, AssertionError):
            return None

    return wait_for(flow, seconds=30, what=f"{device.name} back at {service}")


def refused_again(net, device):
    """The device's agent goes on trying, and is refused with the reason in a router's log."""
    logs = lambda: net.log("router") + "".join(r.log() for r in net.routers)  # noqa: E731
    before = logs().count("router.revoked")
    wait_for(lambda: logs().count("router.revoked") > before, seconds=20, what="a refused attempt")
    assert not device.status().get("online")


def test_a_hundred_devices_with_a_thousand_flows(four):
    """From the call's answer to the end of the last flow at its sink. The figures: tests/bench, revoke_p99_ms."""
    sitting = Sitting(four, addresses(four), count=25, flows=10)
    try:
        times = sitting.revoke_all()
    finally:
        sitting.close()
    over = [t["over"] for t in times]
    print(f"over: p50 {1e3 * quantile(over, 0.5):.1f} ms, p99 {1e3 * quantile(over, 0.99):.1f} ms")
    assert quantile(over, 0.99) <= 1.0, times
    # By the command, which waits for all four.
    gone = sitting.devices[0]
    again = four.sally("revoke", "device", gone.name, "--yes")[0]
    assert again["enforced"]["routers"] == again["enforced"]["of"] == 4
    assert again["certificates"] == 0


def test_suspended_revoked_and_back(net, echo):
    server = net.device("server")
    net.expose(echo, "plant", server, "#sensors")
    pump = net.device("pump", ["sensors"])

    flow = open_flow(pump.forward("plant"))
    answer = []
    assert seconds_until_cut(flow, lambda: answer.append(net.sally("suspend", "pump")[0])) < 1.0
    enforced = answer[0]["enforced"]
    assert enforced["routers"] == enforced["of"] == 1 and enforced["flows_cut"] == 1
    refused_again(net, pump)
    net.sally("resume", "pump")
    flow = flow_again(pump, "plant")  # with the certificate it has
    assert seconds_until_cut(flow, lambda: net.sally("revoke", "device", "pump", "--reason", "key-compromise", "--yes")) < 1.0
    refused_again(net, pump)
    out = net.sally("resume", "pump")[0]
    assert out["enrolled"] is False
    refused_again(net, pump)  # in service, but nothing of what it had
    token = net.sally("device", "token", "pump")[0]["token"]
    sally("join", token, "--dir", pump.dir, "--no-run")
    flow = flow_again(pump, "plant")

    # One certificate; the host's side is cut as well as the dialer's.
    assert seconds_until_cut(flow, lambda: net.sally("revoke", "cert", serial(net, "server"), "--yes")) < 1.0
    wait_for(lambda: not server.hosts("plant"), what="terminator gone")
    row = next(a for a in net.audit() if a["action"] == "certificate.revoke")
    assert row["actor"].startswith("admin/") and row["detail"]["certificates"][0]["key"]
    for device in (server, pump):
        device.stop()


def test_a_batch_and_a_ca(four):
    names = [f"lot-{i}" for i in range(3)]
    for name in names:
        four.sally("device", "add", name, "--batch", "lot")
    out = four.sally("revoke", "batch", "lot", "--yes")[0]
    assert out["devices"] == 3 and out["enforced"]["routers"] == 4
    assert {four.sally("device", "show", n)[0]["standing"] for n in names} == {"revoked"}

    old = four.device("old", ["x"])
    with pytest.raises(Failed) as e:
        four.sally("revoke", "ca", "infrastructure-1", "--yes")
    assert e.value.exit == 5 and e.value.error["code"] == "pki.infrastructure"
    four.sally("revoke", "ca", "devices-1", "--yes")
    refused_again(four, old)
    token = four.sally("device", "token", "old")[0]["token"]
    sally("join", token, "--dir", old.dir, "--no-run")
    wait_for(lambda: old.status().get("online"), seconds=30, what="on line with a certificate of the successor")
    # Also for a controller that starts again.
    os.kill(four.pid("sally-controller"), signal.SIGKILL)
    wait_for(lambda: len(four.routers_online()) == 4, seconds=30, what="routers back")
    new = four.device("new", ["x"])
    new.stop()
    old.stop()


RESUMPTIONS = 10_000


def test_ten_thousand_resumptions_by_a_revoked_device(four, tmp_path):
    """A ticket that any library would take, the certificate that was good a moment ago: at each router, nobody gets in."""
    device = four.device("thief", ["x"], run=False)
    credentials(device)
    pem = device.dir / "test.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["sally-edge/1"])
    ports = [int(a.rsplit(":", 1)[1]) for a in addresses(four)]

    # While it is good: lanes come up, and no router gives a ticket.
    for port in ports:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10)) as s:
            s.settimeout(5)
            assert s.recv(100)  # HELLO: it is in
            assert s.session is None or not s.session.has_ticket
    # One of another server with a router's name and key, so that the attempts offer something.
    router = json.loads(four.routers[0].identity.read_text())["id"]
    (tmp_path / "router.pem").write_text(router["key"] + router["cert"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tmp_path / "router.pem")
        server.set_alpn_protocols(["sally-edge/1"])

        def serve():
            with server.wrap_socket(listener.accept()[0], server_side=True) as s:
                s.sendall(b"x")
                s.recv(1)

        serving = threading.Thread(target=serve)
        serving.start()
        with context.wrap_socket(socket.create_connection(listener.getsockname(), timeout=10)) as s:
            assert s.recv(1) == b"x"
            ticket = s.session
        serving.join(10)
    assert ticket.has_ticket
    four.sally("revoke", "device", "thief", "--yes")

    def attempt(i):
        """None where the connection was not let as far as a handshake; else whether it got in."""
        source = (f"127.{10 + i // 16384 % 100}.{i // 128 % 128}.{1 + i % 128}", 0)
        try:
            raw = socket.create_connection(("127.0.0.1", ports[i % 4]), timeout=20, source_address=source)
            with context.wrap_socket(raw, session=ticket) as s:
                if s.session_reused:
                    return True
                return len(s.recv(100)) > 0
        except ssl.SSLError as e:
            return False if "ALERT_BAD_CERTIFICATE" in str(e).upper() else None
        except OSError:
            return None

    tried = [0, 0, 0, 0]
    got_in = 0
    i = 0
    until = time.monotonic() + 240
    with ThreadPoolExecutor(4) as pool:
        while sum(tried) < RESUMPTIONS and time.monotonic() < until:
            for j, inside in zip(range(i, i + 200), pool.map(attempt, range(i, i + 200))):
                if inside is not None:
                    tried[j % 4] += 1
                    got_in += inside
            i += 200
    print(f"refused at the routers: {tried}")
    assert got_in == 0
    assert sum(tried) >= RESUMPTIONS and min(tried) >= RESUMPTIONS // 5

    # The same with somebody else's program, from a session file.
    for port in ports:
        session = tmp_path / f"session-{port}"
        other = ["openssl", "s_client", "-alpn", "sally-edge/1", "-tls1_3", "-ign_eof", "-cert", pem, "-key", pem, "-cert_chain", pem]
        accept = subprocess.Popen(["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", tmp_path / "router.pem", "-key", tmp_path / "router.pem", "-alpn", "sally-edge/1", "-naccept", "1"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = ""
        while not line.startswith("ACCEPT"):
            line = accept.stdout.readline()
        first = subprocess.Popen([*other, "-connect", line.split()[1], "-sess_out", session], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: session.exists() and session.stat().st_size > 0, what="a session file")
        for process in (first, accept):
            process.kill()
            process.wait(10)
        run = subprocess.run([*other, "-connect", f"127.0.0.1:{port}", "-sess_in", session], input=b"", capture_output=True, timeout=20, check=False)
        assert b"alert number 42" in run.stdout + run.stderr, run.stdout + run.stderr
        assert b"Reused, TLS" not in run.stdout


class Held:
    """A TCP way to the controller that can stop carrying what the controller says."""

    def __init__(self, target):
        self.target, self.held, self.pairs = target, False, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                if self.listener.fileno() < 0:
                    return
                near.close()
                continue
            self.pairs.append((near, far))
            threading.Thread(target=self.carry, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self.carry, args=(far, near, True), daemon=True).start()

    def carry(self, a, b, from_controller):
        try:
            while data := a.recv(65536):
                if not (from_controller and self.held):
                    b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        for pair in self.pairs:
            for s in pair:
                s.close()
        self.pairs = []

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
        self.listener.close()
        self.cut()


def test_a_controller_killed_between_its_answer_and_the_push(four, echo):
    """What it answered is durable, and is the first thing the routers hear from the next process."""
    way = Held(four.port)
    router = four.routers[0]
    host, pump = four.device("late-host", ["late-hosts"], run=False), four.device("late-pump", ["late"], run=False)
    try:
        router.stop()
        router.options = ("--controller", f"127.0.0.1:{way.port}")
        router.start()
        for device in (host, pump):  # both at that router
            identity = json.loads(device.identity.read_text())
            identity["sally"]["routers"] = [router.address]
            device.identity.write_text(json.dumps(identity))
            device.start()
        four.expose(echo, "late", host, "late-pump")
        flow = open_flow(pump.forward("late"))
        way.held = True
        with Admin(four) as admin:
            done = admin.call("POST", "/fleet/v1/devices/late-pump/revoke?wait_ms=500")
        assert done["enforced"]["routers"] < done["enforced"]["of"], "the push did not get through"
        os.kill(four.pid("sally-controller"), signal.SIGKILL)
        flow.sendall(b"pong")
        assert flow.recv(4) == b"pong", "that router knows nothing yet"
        way.cut()
        way.held = False  # the supervisor starts the next controller
        start = time.monotonic()
        try:
            while flow.recv(100):
                pass
        except OSError:
            pass
        assert time.monotonic() - start < 15
        refused_again(four, pump)
        assert four.sally("device", "show", "late-pump")[0]["standing"] == "revoked"
    finally:
        for device in (host, pump):
            device.stop()
        way.close()


def test_past_the_offline_grace_nothing_new_begins(tmp_path):
    net = Net(router_options="--offline-grace 20")
    try:
        with echo_server() as target:
            server, pump = net.device("server"), net.device("pump", ["sensors"])
            net.expose(target, "plant", server, "#sensors")
            port = pump.forward("plant")
            flow = open_flow(port)
            os.kill(net.pid("sally-controller"), signal.SIGSTOP)
            try:
                assert flow.send(b"ping") == 4 and flow.recv(4) == b"ping"

                def refused():
                    with socket.create_connection(("127.0.0.1", port)) as s:
                        s.settimeout(10)
                        try:
                            s.sendall(b"ping")
                            return s.recv(4) == b""
                        except OSError:
                            return True

                wait_for(refused, seconds=45, what="the end of the grace")
                flow.sendall(b"ping")
                assert flow.recv(4) == b"ping", "what is up goes on"
                other = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{net.router_port}", "-alpn", "sally-edge/1", "-tls1_3", "-ign_eof", *credentials(pump)],
                                       input=b"", capture_output=True, timeout=20, check=False)
                assert b"alert number 42" in other.stderr + other.stdout
                assert "router.stale" in net.log("router")
            finally:
                os.kill(net.pid("sally-controller"), signal.SIGCONT)
            wait_for(lambda: not refused(), seconds=45, what="open again")
    finally:
        net.close()
    for bad in ("19", "x", "99999999"):
        run = subprocess.run([str(BIN / "sally-router"), "--dir", str(tmp_path), "--offline-grace", bad], capture_output=True, text=True, check=False)
        assert run.returncode == 2 and "--offline-grace" in run.stderr

