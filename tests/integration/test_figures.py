# SPDX-License-Identifier: Apache-2.0
"""Figures, usage, logs of a running network: what they say is what happened."""
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import time

import pytest
from harness import BIN, ROOT, SALLY, Failed, Net, echo_server, free_ports, pids_of, sally, wait_for
from promlint import parse, value


@pytest.fixture(scope="module")
def net():
    network = Net(options=("--metrics", "--log", "json"))
    yield network
    network.close()


@pytest.fixture(scope="module")
def plant(net):
    with echo_server() as target:
        server, pump = net.device("server"), net.device("pump", ["sensors"])
        net.expose(target, "plant", server, "#sensors")
        yield server, pump, pump.forward("plant")


def http(where, request):
    """The raw answer of a plain listener: a socket's path, or a port."""
    with (socket.socket(socket.AF_UNIX) if not isinstance(where, int) else socket.socket()) as s:
        s.settimeout(10)
        s.connect(str(where) if not isinstance(where, int) else ("127.0.0.1", where))
        s.sendall(request)
        got = b""
        while piece := s.recv(65536):
            got += piece
    return got


def scrape(where):
    head, _, body = http(where, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and b"text/plain; version=0.0.4" in head, head
    return body.decode()


def echo(port, size):
    """`size` bytes there and back."""
    data = os.urandom(1 << 16)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.settimeout(10)
        left = size
        while left:
            piece = data[:min(left, len(data))]
            s.sendall(piece)
            got = 0
            while got < len(piece):
                more = s.recv(len(piece) - got)
                assert more
                got += len(more)
            left -= len(piece)


def usage(net, *args):
    """(sent, received, circuits) of pump to plant."""
    rows = net.sally("usage", "--device", "pump", "--service", "plant", *args)
    return tuple(sum(r[k] for r in rows) for k in ("sent", "received", "circuits"))


def test_all_three_are_clean_and_true(net, plant):
    server, pump, port = plant
    echo(port, 1 << 20)
    token = net.sally("device", "add", "later")[0]["token"]
    texts = {name: scrape(net.context / f"{name}.metrics") for name in ("controller", "router")}
    agent_port = free_ports(1)[0]
    pump.stop()
    agent = subprocess.Popen([BIN / "sally-agent", "--dir", pump.dir, "--metrics", f"127.0.0.1:{agent_port}"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: pump.status().get("online"), what="pump on line")
        wait_for(lambda: pump.sees("plant"), what="pump sees plant")
        echo(port, 100_000)
        texts["agent"] = scrape(agent_port)
    finally:
        agent.terminate()
        agent.wait(15)
        pump.start()
        wait_for(lambda: pump.sees("plant"), what="pump sees plant")
    parsed = {name: parse(text) for name, text in texts.items()}
    documented = set(re.findall(r"^\| `(sally_\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.M))
    assert documented == {name for text in texts.values() for name in re.findall(r"^# TYPE (\S+)", text, re.M)}
    assert value(parsed["controller"], "sally_controller_identities", kind="device", state="active") == 2
    assert value(parsed["controller"], "sally_controller_identities", kind="device", state="waiting") == 1
    assert value(parsed["controller"], "sally_controller_routers_connected") == 1
    assert value(parsed["controller"], "sally_controller_enrolments_total", result="done") == 2
    assert value(parsed["controller"], "sally_controller_database_size_bytes") > 10_000
    assert value(parsed["router"], "sally_router_controller_up") == 1
    assert value(parsed["router"], "sally_router_grace_seconds") > 80_000
    assert sum(parsed["router"]["sally_router_lanes"].values()) == 2
    assert sum(parsed["router"]["sally_router_circuits_opened_total"].values()) >= 1
    moved = parsed["router"]["sally_router_lane_bytes_total"]
    assert sum(n for key, n in moved.items() if ("direction", "in") in key) > 2 << 20
    assert value(parsed["agent"], "sally_agent_online") == 1
    assert value(parsed["agent"], "sally_agent_forward_connections_total", service="plant") == 1
    assert value(parsed["agent"], "sally_agent_lane_bytes_total", direction="out") > 100_000
    # The same for admins over mutual TLS, and for nobody else.
    identity = json.loads((net.context / "admin.json").read_text())
    for file, text in (("key", identity["id"]["key"]), ("cert", identity["id"]["cert"]), ("ca", identity["id"]["ca"])):
        (net.root / f"admin.{file}").write_text(text.removeprefix("pem:"))
    curl = ["curl", "-sS", "-w", "%{http_code}", "--cacert", net.root / "admin.ca", f"https://127.0.0.1:{net.port}/metrics"]
    stranger = subprocess.run(curl, capture_output=True, text=True, check=True)
    assert stranger.stdout.endswith("401") and "sally_" not in stranger.stdout
    admin = subprocess.run([*curl, "--key", net.root / "admin.key", "--cert", net.root / "admin.cert"], capture_output=True, text=True, check=True)
    assert admin.stdout.endswith("200")
    assert value(parse(admin.stdout.removesuffix("200")), "sally_controller_services") == 1
    # Nothing secret, and no device as a series.
    for text in texts.values():
        assert token not in text and token.split(".")[-1] not in text
        assert pump.id not in text and server.id not in text


def test_bad_requests_are_refused(net, plant):
    where = net.context / "router.metrics"
    assert oct(where.stat().st_mode & 0o777) == "0o600"
    for request, status in ((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
                            (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", b"405"),
                            (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403"),
                            (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 9000 + b"\r\n\r\n", b"431"),
                            (b"\x16\x03\x01\x02\x00 hello\r\n\r\n", b"400")):
        assert http(where, request).startswith(b"HTTP/1.1 " + status), request[:40]
    for at in ("0.0.0.0:9100", "*:9100", "192.0.2.1:9100", "unix:relative"):
        for program in ("sally-controller", "sally-router", "sally-agent"):
            done = subprocess.run([BIN / program, "--dir", net.root, "--metrics", at], capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode == 2 and "--metrics" in done.stderr, (program, at, done)
    assert parse(scrape(where))


def test_usage_is_what_flowed_over_restarts_of_both(net, plant):
    """Each byte once: the dialer's and the host's SDK, the router's report and the database agree."""
    server, pump, port = plant

    def settled():
        """What is stored once two looks in a row, of which the second is after the router reported, are the same."""

        def reported():
            return [r.get("at") for r in net.sally("top", "--once")["routers"]]  # somebody watches: a report every 2 s

        before, last = usage(net), reported()
        wait_for(lambda: reported() != last, seconds=15, what="a report of the router")
        return before if usage(net) == before else None

    start = wait_for(settled, seconds=40, what="usage at rest")
    size = 3_000_000
    echo(port, size)
    done = wait_for(lambda: (u := settled()) and u[0] > start[0] + size and u, seconds=40, what="usage of the flow")
    sent, received, circuits = (a - b for a, b in zip(done, start))
    # Ciphertext of the inner TLS: a record adds 22 bytes, the handshake a few thousand.
    assert size < sent < size * 1.02 + 20_000 and size < received < size * 1.02 + 20_000
    assert circuits == 1
    # What one flow of this size costs is the same each time but for how it was cut into records.
    # The router is stopped while nothing of the flow has been told: the next one tells it.
    echo(port, size)
    os.kill(net.pid("sally-router"), signal.SIGTERM)
    after = wait_for(lambda: (u := settled()) and u[0] >= done[0] + size and u, seconds=60, what="usage after the router's restart")
    assert size < after[0] - done[0] < size * 1.02 + 20_000 and after[2] - done[2] == 1
    # The controller is away while the flow is counted; its database is as it was killed.
    wait_for(lambda: pump.status().get("online") and pump.sees("plant"), seconds=20, what="pump on line")
    wait_for(lambda: server.hosts("plant"), seconds=20, what="plant hosted")
    os.kill(net.pid("sally-controller"), signal.SIGKILL)
    echo(port, size)

    def answers():
        try:
            return settled()
        except Failed:
            return None

    last = wait_for(lambda: (u := answers()) and u[0] >= after[0] + size and u, seconds=60, what="usage after the controller's death")
    assert size < last[0] - after[0] < size * 1.02 + 20_000 and last[2] - after[2] == 1
    by_day = net.sally("usage", "--since", "1d", "--by-day", "--device", "pump")
    assert sum(r["sent"] for r in by_day) == last[0] and all(re.fullmatch(r"\d{4}-\d\d-\d\d", r["day"]) for r in by_day)
    with pytest.raises(Failed) as e:
        net.sally("usage", "--since", "yesterday")
    assert e.value.exit == 2


def test_top_shows_a_flow_once_and_live(net, plant):
    _, _, port = plant
    stop = time.monotonic() + 30

    def flowing():
        echo(port, 2_000_000)
        live = net.sally("top", "--once")
        return live if live["services"] and live["services"][0]["sent_per_s"] > 1000 else None

    live = wait_for(flowing, seconds=30, what="a rate in top")
    assert time.monotonic() < stop
    assert live["devices"][0]["name"] == "pump" and live["services"][0]["name"] == "plant"
    assert live["routers"][0]["lanes"] == 2 and live["routers"][0]["in_per_s"] > 1000
    text = subprocess.run([SALLY, "--context", net.context, "top", "--once"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert "pump" in text and "plant" in text and "\033" not in text

    # On a terminal: the screen is taken, q gives it back with all its modes.
    def on_terminal(end):
        pid, fd = pty.fork()
        if pid == 0:
            os.environ["LANG"] = "C.UTF-8"
            os.execv(SALLY, [SALLY, "--context", str(net.context), "top"])
        seen = b""

        def read():
            nonlocal seen
            if select.select([fd], [], [], 0)[0]:
                try:
                    seen += os.read(fd, 65536)
                except OSError:
                    return True
            return False

        wait_for(lambda: read() or b"plant" in seen, seconds=20, what="top on a terminal")
        assert seen.startswith(b"\033[?1049h\033[?25l"), seen[:40]
        import termios
        assert not termios.tcgetattr(fd)[3] & termios.ECHO
        end(pid, fd)
        wait_for(lambda: read() or seen.endswith(b"\033[?25h\033[?1049l"), seconds=10, what="the terminal given back")
        assert termios.tcgetattr(fd)[3] & termios.ECHO
        _, status = os.waitpid(pid, 0)
        os.close(fd)
        return os.waitstatus_to_exitcode(status)

    assert on_terminal(lambda pid, fd: os.write(fd, b"q")) == 0
    assert on_terminal(lambda pid, fd: os.kill(pid, signal.SIGTERM)) == 0

    def stopped_and_ended(pid, _):  # a stop would leave the shell behind it a raw terminal
        os.kill(pid, signal.SIGTSTP)
        os.kill(pid, signal.SIGTERM)

    assert on_terminal(stopped_and_ended) == 0


def test_logs_are_json_with_known_codes_and_without_tokens(net, plant):
    _, pump, _ = plant
    with pytest.raises(Failed):  # a token that was used is refused, and told
        sally("join", pump.token, "--dir", net.root / "again", "--no-run")
    table = set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/logs.md").read_text(), re.M))
    codes = set()
    for program in ("controller", "router"):
        for line in net.log(program).splitlines():
            if not line.startswith("{"):
                assert line.startswith("ready ") or "sally-" in line, line
                continue
            row = json.loads(line)
            assert {"time", "level", "code", "component", "network", "fields"} <= set(row), line
            assert row["component"] == program and isinstance(row["fields"], dict)
            assert row["code"] in table, row
            codes.add(row["code"])
    assert {"controller.ready", "api.enrolled", "api.enrolment_refused", "router.device_up", "router.circuit_open"} <= codes
    everything = "".join(p.read_text(errors="replace") for p in net.root.rglob("*.log"))
    for device in net.devices:
        assert device.token not in everything and all(part not in everything for part in device.token.split(".")[1:])
    assert "PRIVATE KEY" not in everything
    assert pids_of(net.context)
