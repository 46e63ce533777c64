# SPDX-License-Identifier: Apache-2.0
"""256 peers that nobody knows, in processes of their own at nice 19, beside a flow that has a pace."""
import json
import ssl
import subprocess
import sys
import threading
import time
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from flow import healthy_flow
from forge import tls
from harness import Net, pids_of, wait_for
from test_limits import http, request

pytestmark = pytest.mark.measures
STRANGERS = Path(__file__).resolve().parent / "strangers.py"
SOURCES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")  # each has its own limit: a worse crowd than one from one source


def paced(s, pipe, per_second):
    """Runs in a process of its own: answers each number of seconds with the round trips in ms, from when a message was due."""
    while True:
        count = int(pipe.recv() * per_second)
        start = time.monotonic()
        due = [start + i / per_second for i in range(count)]
        seen = []

        def receive():
            got = 0
            while len(seen) < count:
                piece = s.recv(65536)
                if not piece:
                    return
                got += len(piece)
                while len(seen) < count and got >= 100 * (len(seen) + 1):
                    seen.append((time.monotonic() - due[len(seen)]) * 1000)

        receiver = threading.Thread(target=receive)
        receiver.start()
        for at in due:
            time.sleep(max(0.0, at - time.monotonic()))  # NOLINT(sally-sleep): the pace
            s.sendall(b"x" * 100)
        receiver.join(10)
        pipe.send(seen if len(seen) == count else None)


@pytest.fixture(scope="module")
def flow(net):
    """Round trips of a healthy device, 200 messages of 100 bytes a second."""
    with healthy_flow(net, paced, 200) as (pipe, _):

        class Flow:
            def start(self, seconds):
                pipe.send(seconds)

            def latencies(self):
                assert pipe.poll(30), "the healthy flow stands still"
                times = pipe.recv()
                assert times, "the healthy flow was cut or fell behind"
                return sorted(times)

        yield Flow()


def memory_mb(pid, key):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key + ":")) / 1024


def start_peak(pid):
    """RSS now; VmHWM counts from here."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory_mb(pid, "VmRSS")


def p99(times):
    return times[int(len(times) * 0.99)]


@pytest.mark.parametrize("listener", ["router", "controller"])
def test_256_strangers_beside_200_messages_a_second(net, flow, listener):
    port = {"router": net.router_port, "controller": net.port}[listener]
    pid = {name: pids_of(net.context)[f"sally-{name}"][0] for name in ("router", "controller")}
    flow.start(1)
    flow.latencies()  # warm
    before = {name: start_peak(p) for name, p in pid.items()}
    crowd = [subprocess.Popen([sys.executable, STRANGERS, str(port), listener, "64", source, "11"], stdout=subprocess.PIPE) for source in SOURCES]
    try:
        wait_for(lambda: connections(port) > 100, what="a crowd at the door")
        flow.start(10)
        times = flow.latencies()
        assert len(times) == 2000
        told = [json.loads(process.communicate(timeout=60)[0]) for process in crowd]
    finally:
        for process in crowd:
            process.kill()
            process.wait()
    grown = {name: memory_mb(p, "VmHWM") - before[name] for name, p in pid.items()}
    assert p99(times) < 50, (times[1000], times[-20:])
    assert grown["router"] < 64 and grown["controller"] < 64, grown
    assert sum(t["made"] for t in told) >= 256, told
    assert all(t["left"] == 0 for t in told), told
    # The listener still serves, and what was healthy is.
    flow.start(0.5)
    flow.latencies()
    assert net.sally("status")[0]["network"]["routers"][0]["online"]


def connections(port):
    """Established connections to the port, of all sources."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


UPLOADS = ("/enroll?method=ott&token=x", "/edge/client/v1/enroll/ott", "/edge/client/v1/authenticate?method=cert", "/fleet/v1/devices")


class Uploads:
    """256 uploads at a time for six seconds, and what others noticed."""

    def __init__(self, net, flow):
        crowd = [subprocess.Popen([sys.executable, STRANGERS, "flood", str(net.port), path, "64", source, "6"], stdout=subprocess.PIPE) for path, source in zip(UPLOADS, SOURCES, strict=True)]
        client = HTTPSConnection("127.0.0.1", net.port, context=ssl._create_unverified_context())
        self.client, self.flow = [], []
        try:
            client.connect()
            while any(process.poll() is None for process in crowd):
                flow.start(0.5)
                until = time.monotonic() + 0.5
                while (start := time.monotonic()) < until:
                    client.request("GET", "/version")
                    assert client.getresponse().read()
                    self.client.append((time.monotonic() - start) * 1000)
                    time.sleep(0.01)  # NOLINT(sally-sleep): a client that does not ask without end
                self.flow += flow.latencies()
            self.answers = [a for process in crowd for a in json.loads(process.communicate()[0])]
        finally:
            client.close()
            for process in crowd:
                process.kill()
                process.wait()


def test_ghsa_q8g9_jc4c_jp6q_256_uploads_of_a_gibibyte_before_authentication(net, flow):
    pid = pids_of(net.context)["sally-controller"][0]
    before = start_peak(pid)
    flow.start(1)
    flow.latencies()
    for _ in range(3):  # a machine that is busy with other things is asked again
        run = Uploads(net, flow)
        # 413, or 503 beyond 64 MiB of all bodies together, or the end of the connection where the answer was lost to what was still being sent.
        count = {a: run.answers.count(a) for a in set(run.answers)}
        assert len(run.answers) >= 256 and set(count) <= {413, 503, 0, "never connected"}, count
        assert count[413] > 0 and count[413] + count.get(503, 0) >= len(run.answers) / 4, count
        late = p99(sorted(run.client)), p99(sorted(run.flow))
        if late[0] < 100 and late[1] < 250:
            break
    assert late[0] < 100 and late[1] < 250, late
    grown = memory_mb(pid, "VmHWM") - before
    assert grown < 300, grown
    assert http(net, request())[0] == [200]


def test_ghsa_j952_6x8x_jmj6_bodies_at_exactly_the_cap_are_held_once():
    """32 bodies of 1 MiB, all but their last byte there: what the controller holds for them, at most 1.1 of it each."""
    cap, count = 1 << 20, 32
    body = b"a" * cap
    for length in (f"Content-Length: {cap}", "Transfer-Encoding: chunked"):
        net = Net()  # a new process: memory that was used before would hide what is used now
        try:
            pid = pids_of(net.context)["sally-controller"][0]
            head = f"POST /enroll?method=ott&token=x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n\r\n".encode()
            rest = b"%x\r\n" % cap + body + b"\r\n0\r\n\r\n" if length.startswith("T") else body
            assert http(net, request())[0] == [200]
            before = start_peak(pid)
            open_ones = []
            for _ in range(count):
                s = tls(net.port)
                s.sendall(head + rest[:-1])
                open_ones.append(s)
            wait_for(lambda: memory_mb(pid, "VmRSS") - before > count * 0.9, what="the bodies at the controller")
            for s in open_ones:
                s.sendall(rest[-1:])
                answer = b""
                while piece := s.recv(4096):
                    answer += piece
                assert answer.startswith(b"HTTP/1.1 4"), answer[:100]
                s.close()
            # Sessions and records of 32 connections are in it as well: 100 KiB each.
            grown = memory_mb(pid, "VmHWM") - before
            assert grown < count * 1.1 + count * 0.1, grown
        finally:
            net.close()
