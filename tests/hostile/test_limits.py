# SPDX-License-Identifier: Apache-2.0
"""Peers that nobody knows yet may cost little, and never the others: garbage, slow and endless peers on every listener."""
import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from flow import healthy_flow
from forge import Identity, hello, tls
from harness import EXAMPLES, SALLY, pids_of, wait_for


@pytest.fixture(scope="module")
def flow(net):
    """The latencies of a healthy device's round trips, in ms."""
    with healthy_flow(net, measure) as (pipe, device):

        def latencies(seconds):
            pipe.send(seconds)
            assert pipe.poll(seconds + 15), "the healthy flow stands still"
            times = pipe.recv()
            assert times, "the healthy flow was cut"
            return times

        yield latencies, device


def measure(s, pipe):
    """Answers each number of seconds that comes through `pipe` with the round trips of that time, in ms; None: the flow was cut."""
    while True:
        seconds = pipe.recv()  # waits
        until = time.monotonic() + seconds
        out = []
        while time.monotonic() < until:
            start = time.monotonic()
            s.sendall(b"x" * 100)
            got = 0
            while got < 100:
                piece = s.recv(100)
                if not piece:
                    return pipe.send(None)
                got += len(piece)
            out.append((time.monotonic() - start) * 1000)
        pipe.send(out)


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


def codes(net, program):
    return re.findall(r"code=(\S+)", net.log(program))


HELLO = object()  # replaced by a genuine one
GARBAGE = bytes(range(256)) * 256


@pytest.mark.parametrize("what,first,code", [("silence", [], "lane.no_hello"), ("garbage", [GARBAGE], "wire."),
                                             ("ping before hello", [bytes(7) + b"\x0a" + bytes(8)], "lane.protocol"),
                                             ("garbage after hello", [HELLO, GARBAGE], "wire."), ("a second hello", [HELLO, HELLO], "lane.protocol")])
def test_a_device_that_does_not_speak_the_protocol_loses_its_lane_only(net, flow, tmp_path, what, first, code):
    measure, device = flow
    before = len(codes(net, "router"))
    me = Identity(device.identity)
    with tls(net.router_port, "sally-edge/1", me.key, me.chain, tmp_path) as s:
        try:
            for piece in first:
                s.sendall(hello(me.network) if piece is HELLO else piece)
        except OSError:
            pass
        s.settimeout(10)
        try:
            while s.recv(65536):
                pass
        except OSError:
            pass
    wait_for(lambda: any(c.startswith(code) for c in codes(net, "router")[before:]), what=f"{code} in the router's log")
    measure(0.1)


def http(net, raw, folder=None, identity=None, timeout=15):
    """Sends raw bytes; status codes of the answers that came, in order, and the last body."""
    with tls(net.port, None, identity and identity.key, identity.chain if identity else (), folder) as s:
        s.settimeout(timeout)
        try:
            s.sendall(raw)
        except OSError:
            pass  # closed early: the answer may still be there
        data = b""
        try:
            while piece := s.recv(65536):
                data += piece
        except OSError:
            pass
    return [int(h) for h in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)], data.rsplit(b"\r\n\r\n", 1)[-1]


def request(method="GET", path="/version", headers=(), body=b""):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_rest_limits_and_shapes(net):
    assert http(net, request())[0] == [200]
    cases = {
        "a header of 20 KiB": (request(headers=["X: " + "a" * 20_000]), {431, 400}),
        "200 headers": (request(headers=[f"X{i}: 1" for i in range(200)]), {431, 400}),
        "a body over the cap": (request("POST", "/enroll?method=ott&token=x", ["Content-Length: 2000000"], b"a" * 2_000_000), {413}),
        "an endless chunked body": (request("POST", "/enroll?method=ott&token=x", ["Transfer-Encoding: chunked"], b"10000\r\n" + b"a" * 65536 + (b"\r\n10000\r\n" + b"a" * 65536) * 40), {413}),
        "two lengths": (request("POST", "/enroll", ["Content-Length: 1", "Content-Length: 2"], b"ab"), {400}),
        "length and chunked": (request("POST", "/enroll", ["Content-Length: 4", "Transfer-Encoding: chunked"], b"0\r\n\r\n"), {400}),
        "a space in the name": (b"GET /version HTTP/1.1\r\nHost : x\r\n\r\n", {400}),
        "HTTP/3": (b"GET / HTTP/3.0\r\n\r\n", {400, 505}),
        "garbage": (os.urandom(500).replace(b"\n", b"x") + b"\r\n\r\n", {400}),
        "dot dot": (request(path="/fleet/v1/../../version"), {401, 404, 400}),
        "coded dot dot": (request(path="/%2e%2e/%2e%2e/etc/passwd"), {401, 404, 400}),
        "NUL": (request(path="/version%00"), {404, 400}),
    }
    for what, (raw, allowed) in cases.items():
        statuses, body = http(net, raw)
        assert statuses and statuses[0] in allowed, (what, statuses)
        assert json.loads(body)["error"]["code"], (what, body)


def pipeline(port, raw):
    """Status codes of the answers to raw requests on one connection; runs in another process."""
    with tls(port) as s:
        s.settimeout(15)
        s.sendall(raw)
        pieces = []
        try:
            while piece := s.recv(65536):
                pieces.append(piece)
        except OSError:
            pass
    return [int(h) for h in re.findall(rb"HTTP/1\.1 (\d{3}) ", b"".join(pieces))]


@pytest.mark.measures
def test_ten_thousand_pipelined_requests(net, flow):
    measure, _ = flow
    count = 10_000
    one = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    pid = pids_of(net.context)["sally-controller"][0]
    before = rss_mb(pid)
    # A process of its own: in a thread its work on the answers would hold the interpreter, and the
    # latencies would be this test's.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        attack = pool.submit(pipeline, net.port, one * (count - 1) + request())
        times = measure(0.5)
        while not attack.done():
            times += measure(0.1)
        answers = attack.result()
    # In order, all of them, or the connection's end: never a wait without limit.
    assert answers == [200] * count, len(answers)
    assert rss_mb(pid) - before < 64
    times.sort()
    assert times[int(len(times) * 0.99)] < 250


@pytest.mark.parametrize("what,first,piece", [("head", b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
                                              ("body", request("POST", "/enroll?method=ott&token=x", ["Content-Length: 100000"]), b"a"),
                                              ("chunks", request("POST", "/enroll?method=ott&token=x", ["Transfer-Encoding: chunked"]), b"1\r\na\r\n")])
def test_a_request_that_drips_ends_at_its_deadline(net, what, first, piece):
    """Ten seconds from its first byte, however busily it drips."""
    with tls(net.port) as s:
        s.sendall(first)
        s.settimeout(0.2)
        start = time.monotonic()
        data = b""
        while time.monotonic() - start < 15:
            try:
                got = s.recv(4096)
                data += got
                if not got:
                    break
            except TimeoutError:
                try:
                    s.sendall(piece)
                except OSError:
                    break
            except OSError:
                break
        took = time.monotonic() - start
    assert 8 < took < 13, took
    assert data.startswith(b"HTTP/1.1 408 ") and json.loads(data.rsplit(b"\r\n\r\n", 1)[-1])["error"]["code"] == "http.timeout"


ROUTES = [("GET", "status"), ("GET", "audit"), ("GET", "audit/verify"), ("GET", "devices"), ("POST", "devices"), ("GET", "devices/x"), ("DELETE", "devices/x"), ("GET", "routers"), ("POST", "routers"),
          ("GET", "admins"), ("POST", "admins"), ("POST", "devices/x/suspend"), ("POST", "devices/x/activate"), ("PUT", "devices/x/tags"), ("GET", "tokens"), ("POST", "tokens"), ("DELETE", "tokens/x"),
          ("GET", "services"), ("POST", "services"), ("DELETE", "services/x"), ("POST", "expose"), ("GET", "grants"), ("POST", "grants"), ("DELETE", "grants/x"), ("POST", "deny")]


def test_4010_fleet_belongs_to_admins(net, flow, tmp_path):
    """Whatever else somebody is: no endpoint of the fleet, least of all those that make admins."""
    _, device = flow
    router = Identity(net.context / "router/identity.json")
    for method, path in ROUTES:
        raw = request(method, "/fleet/v1/" + path, ["Content-Length: 2", "Content-Type: application/json"], b"{}")
        statuses, body = http(net, raw)
        assert statuses == [401] and json.loads(body)["error"]["code"], (method, path, statuses)
        statuses, body = http(net, raw, tmp_path, Identity(device.identity))
        assert statuses == [403] and json.loads(body)["error"]["code"], (method, path, statuses)
        statuses, body = http(net, raw, tmp_path, router)
        assert statuses == [403] and json.loads(body)["error"]["code"], (method, path, statuses)


def test_what_an_admin_types_wrong_is_never_a_500(net, flow, tmp_path):
    admin = Identity(net.context / "admin.json")
    bombs = [b"", b"{", b"[]", b"null", b"[" * 5000, b'{"name":' * 2000, b'{"name":1}', b'{"name":"' + b"a" * 100_000 + b'"}', b'{"name":"\\u0000"}', b'{"name":"x","tags":"y"}', b'{"name":"x","tags":[1]}',
             b'{"service":{},"selector":[]}', b'{"name":"\xff\xfe"}', b'{"name":"-x","address":"nowhere","host":["*"]}', b'{"identity":"x","life_s":-1}']
    for path in ("devices", "routers", "admins", "tokens", "services", "expose", "grants", "deny", "devices/server/suspend/x", "nothing"):
        for bomb in bombs:
            statuses, body = http(net, request("POST", "/fleet/v1/" + path, [f"Content-Length: {len(bomb)}", "Content-Type: application/json"], bomb), tmp_path, admin)
            assert statuses and 400 <= statuses[0] < 500, (path, bomb[:40], statuses, body[:200])
            assert json.loads(body)["error"]["code"]
    for method in ("PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"):
        statuses, _ = http(net, request(method, "/fleet/v1/status"), tmp_path, admin)
        assert not statuses or statuses[0] < 500 or statuses[0] == 501, (method, statuses)


def test_a_foreign_admin_is_nobody_here(net, tmp_path):
    import harness
    other = harness.Net()
    try:
        stranger = Identity(other.context / "admin.json")
        with pytest.raises(OSError):
            with tls(net.port, None, stranger.key, stranger.chain, tmp_path) as s:
                s.sendall(request("GET", "/fleet/v1/devices"))
                if not s.recv(100):
                    raise ConnectionResetError
    finally:
        other.close()


def test_the_agents_socket(flow):
    _, device = flow
    path = device.dir / "agent.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    idle = []
    for _ in range(100):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(1)
        try:
            s.connect(str(path))
            idle.append(s)
        except OSError:
            pass
    assert len(idle) > 16
    # Silent clients make room for one who asks.
    assert device.status().get("online")
    for s in idle:
        s.close()
    for line in (b"\n", b"{}\n", b"[]\n", b'{"request":"nothing"}\n', b'{"request":"forward"}\n', b"\xff\xfe\n", b"a" * 200_000):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(12)
        s.connect(str(path))
        try:
            s.sendall(line)
            answer = s.recv(4096)
            assert not answer or "error" in json.loads(answer)
        except OSError:
            pass
        s.close()
    wait_for(lambda: device.status().get("online"), what="the agent still answers")


@pytest.mark.parametrize("kind", ["endless", "dripping", "garbage"])
def test_an_agent_that_is_none_cannot_hold_the_command(net, tmp_path, kind):
    """Whoever can put a socket into the folder of a device: the command ends, in bounded time and memory."""
    device = net.device(f"fake-{kind}", run=False)
    path = device.dir / "agent.sock"
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(8)
    server.settimeout(0.2)
    stop = threading.Event()

    def serve(c):
        try:
            while not stop.is_set():
                if kind == "endless":
                    c.sendall(b"[" * 65536)
                elif kind == "dripping":
                    c.sendall(b" ")
                    stop.wait(0.5)
                elif kind == "garbage":
                    return c.sendall(os.urandom(1000))
                else:
                    stop.wait(0.5)
        except OSError:
            pass
        finally:
            c.close()

    def accept():
        while not stop.is_set():
            try:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
            except TimeoutError:
                pass

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        start = time.monotonic()
        run = subprocess.Popen([SALLY, "forward", "x", "1883", "--dir", str(device.dir)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = 0
        while run.poll() is None:  # its own high-water mark: what wait4 says includes ours, from before exec
            with contextlib.suppress(OSError, ValueError):
                lines = Path(f"/proc/{run.pid}/status").read_text().splitlines()
                if Path(os.readlink(f"/proc/{run.pid}/exe")).name == "sally":
                    peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
            time.sleep(0.02)  # NOLINT(sally-sleep): between two looks at another process
        assert run.returncode in range(1, 8)
        assert time.monotonic() - start < 15
        assert 0 < peak < 200 * 1024 or os.environ.get("SALLY_SANITIZED"), peak
    finally:
        stop.set()
        acceptor.join()
        server.close()


def test_4330_4332_4336_every_way_to_dial_asks_for_the_grant(net, flow):
    """The command, a local forward that was allowed once, the C ABI of a program: without a grant none of them reaches the host."""
    guest = net.device("guest", ["guests"])
    stop = [guest.popen_connect(name).communicate(timeout=20) for name in ("plant", "no-such-service")]
    assert stop[0] == stop[1]
    plain = lambda: subprocess.run([EXAMPLES / "echo-client", guest.identity, "plant"], input=b"hello", capture_output=True, timeout=60, check=False)
    refused = plain()
    assert refused.returncode == 1 and b"sally.no_service" in refused.stderr
    net.sally("allow", "guest", "plant")
    port = guest.forward("plant")

    wait_for(lambda: echoes(port), what="the forward leads to the service")
    assert plain().stdout == b"hello"
    net.sally("deny", "guest", "plant")
    wait_for(lambda: not guest.sees("plant"), what="the grant is gone")
    assert not echoes(port)
    assert plain().returncode == 1
    assert guest.popen_connect("plant").wait(20) == 4


def echoes(port):
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.settimeout(5)
        try:
            s.sendall(b"hello")
            return s.recv(5) == b"hello"
        except OSError:
            return False


def test_a_local_forward_that_is_flooded_still_forwards(net, flow):
    """Whoever can reach a forward may use it: 300 silent connections cost him and not the next one."""
    measure, device = flow
    port = device.forward("plant")
    idle = []
    for _ in range(300):
        try:
            idle.append(socket.create_connection(("127.0.0.1", port), timeout=2))
        except OSError:
            break
    try:
        measure(0.2)  # what flows goes on
    finally:
        for s in idle:
            s.close()
    wait_for(lambda: echoes(port), what="the next connection is served")
    assert device.status().get("online")
