# SPDX-License-Identifier: Apache-2.0
"""Many byte streams through the overlay at once; the short form runs in test_streams.py, the long one in tests/soak."""
import hashlib
import os
import random
import socket
import threading
import time
from multiprocessing import get_context


def _send_one(port, seed, size, results):
    """A stream of `size` bytes that `seed` makes; the receiver answers with their hash."""
    block = random.Random(seed).randbytes(1 << 20)
    h = hashlib.sha256()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as s:
            left = size
            while left:
                piece = block[:min(left, len(block))]
                h.update(piece)
                s.sendall(piece)
                left -= len(piece)
            s.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := s.recv(4096):
                answer += piece
        results.append(answer == h.digest())
    except OSError:
        results.append(False)


def _sender(port, seeds, size, pipe):
    results = []
    threads = [threading.Thread(target=_send_one, args=(port, seed, size, results)) for seed in seeds]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    pipe.send(results)


def _hash(c):
    h = hashlib.sha256()
    try:
        while data := c.recv(1 << 20):
            h.update(data)
        c.sendall(h.digest())
    except OSError:
        pass
    c.close()


def _accept(listener, serve):
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


class Service:
    """A TCP server in a process of its own."""

    def __init__(self, serve):
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = listener.getsockname()[1]
        self.process = get_context("fork").Process(target=_accept, args=(listener, serve), daemon=True)
        self.process.start()
        listener.close()

    def close(self):
        self.process.kill()
        self.process.join()


def hashed_streams(port, count, size):
    """`count` streams at once, by two processes; seconds they took. Every hash must be equal."""
    start = time.monotonic()
    pipes = []
    for half in range(2):
        ours, theirs = get_context("fork").Pipe()
        process = get_context("fork").Process(target=_sender, args=(port, [os.urandom(8) for _ in range(half, count, 2)], size, theirs), daemon=True)
        process.start()
        pipes.append((ours, process))
    results = []
    for ours, process in pipes:
        assert ours.poll(1800), "streams stand still"
        results += ours.recv()
        process.join()
    assert len(results) == count and all(results), results
    return time.monotonic() - start


def _echo(c):
    try:
        while data := c.recv(65536):
            c.sendall(data)
    except OSError:
        pass
    c.close()


def beside_a_stalled_reader(net, host, device, seconds):
    """Round trips and throughput of others while a receiver that reads nothing stands in the way; then it reads, and has everything."""
    services = {"echo": Service(_echo), "hash": Service(_hash)}
    gate = get_context("fork").Event()

    def serve_stalled(c):
        gate.wait()
        _hash(c)

    services["stall"] = Service(serve_stalled)
    try:
        for name, service in services.items():
            net.expose(service.port, f"beside-{name}", host, "#sensors")
        port = {name: device.forward(f"beside-{name}") for name in services}
        quiet = round_trips(port["echo"], 2)
        alone = 64e6 / hashed_streams(port["hash"], 4, 16_000_000)
        stalled = []
        size = 24_000_000  # more than everything between the two can hold
        sender = threading.Thread(target=_send_one, args=(port["stall"], b"stalled", size, stalled))
        sender.start()
        start = time.monotonic()
        during, rates = [], []
        while time.monotonic() - start < seconds:
            during += round_trips(port["echo"], min(2, seconds))
            rates.append(64e6 / hashed_streams(port["hash"], 4, 16_000_000))
        assert not stalled, "it did not stall"
        gate.set()
        sender.join(60)
        assert stalled == [True]
        return {"quiet": sorted(quiet), "during": sorted(during), "alone": alone, "rates": rates}
    finally:
        for service in services.values():
            service.close()


def round_trips(port, seconds):
    out = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            start = time.monotonic()
            s.sendall(b"x" * 100)
            got = 0
            while got < 100:
                piece = s.recv(100)
                assert piece, "cut"
                got += len(piece)
            out.append((time.monotonic() - start) * 1000)
    return out
