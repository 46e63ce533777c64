# SPDX-License-Identifier: Apache-2.0
"""What takes too long for make test: see README.md. Each prints what it measured."""
import json
import os
import subprocess
import time
from pathlib import Path

import harness
import pytest
from streams import Service, _hash, beside_a_stalled_reader, hashed_streams

CIRCUITS = int(os.environ.get("SOAK_CIRCUITS", "1000000"))
STALLED = int(os.environ.get("SOAK_STALLED", "10000"))
STALLED_BYTES = int(os.environ.get("SOAK_STALLED_BYTES", "262144"))
STALL_S = int(os.environ.get("SOAK_STALL_S", "60"))
STREAM_MB = int(os.environ.get("SOAK_STREAM_MB", "100"))
BUDGET_MB = int(os.environ.get("SOAK_BUDGET_MB", "512"))  # of the router, for data that waits
# The load is one device where the world would have thousands.
ROUTER_OPTIONS = f"--memory {BUDGET_MB} --device-lanes 100000 --device-dials 100000 --service-dials 100000"
SOURCES = ",".join(f"127.0.1.{i + 1}" for i in range(16))


def memory_mb(pid, key="VmRSS"):
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(key + ":")) / 1024


@pytest.fixture
def net():
    network = harness.Net(listen="0.0.0.0", router_options=ROUTER_OPTIONS)
    yield network
    network.close()


@pytest.fixture
def pair(net):
    return net.device("server"), net.device("pump", ["sensors"])


@pytest.fixture
def load(net):
    """The load generator between two devices of its own."""
    net.sally("service", "add", "flow", "--host", "#host", "--allow", "#dial")
    host, dialer = net.device("host", ["host"], run=False), net.device("dialer", ["dial"], run=False)
    return lambda run, *args: subprocess.Popen(
        [str(harness.BIN / "bench_load"), run, "--service", "flow", "--host", str(host.identity), "--dialer", str(dialer.identity), "--routers", SOURCES, "--port", str(net.router_port),
         "--watch", str(net.pid("sally-router")), *map(str, args)], stdout=subprocess.PIPE, text=True)


def test_64_streams_of_100_mb(net, pair):
    server, pump = pair
    service = Service(_hash)
    try:
        net.expose(service.port, "hash", server, "#sensors")
        seconds = hashed_streams(pump.forward("hash"), 64, STREAM_MB * 1_000_000)
        print(f"64 x {STREAM_MB} MB: {seconds:.1f} s, router {memory_mb(net.pid('sally-router'), 'VmHWM'):.0f} MiB at most")
    finally:
        service.close()


def test_a_reader_stalled_for_a_minute_slows_nobody(net, pair):
    seen = beside_a_stalled_reader(net, *pair, seconds=STALL_S)
    p99 = lambda times: times[int(len(times) * 0.99)]
    print(f"p99 {p99(seen['quiet']):.2f} ms before, {p99(seen['during']):.2f} ms beside it; {seen['alone'] / 1e6:.0f} MB/s before, {min(seen['rates']) / 1e6:.0f} to {max(seen['rates']) / 1e6:.0f} beside it")
    assert p99(seen["during"]) < max(5 * p99(seen["quiet"]), 20)
    assert sorted(seen["rates"])[len(seen["rates"]) // 2] > 0.7 * seen["alone"]


def test_10000_stalled_circuits(net, load):
    run = load("stalled", "--count", STALLED, "--bytes", STALLED_BYTES)
    out, _ = run.communicate(timeout=1800)
    assert run.returncode == 0, out
    seen = json.loads(out)
    print(f"{STALLED} stalled circuits: {seen}")
    assert seen["next_s"] >= 0 and seen["next_bytes"] == 4_000_000, "the next circuit does not flow"
    assert seen["peak_mb"] < BUDGET_MB + 64, seen


def test_a_million_circuits_leave_no_memory_behind(net, load):
    router = net.pid("sally-router")
    run = load("dials", "--count", CIRCUITS, "--lanes", 16, "--limit", 600 + CIRCUITS // 20)
    samples = []  # of the router, evenly in time
    while run.poll() is None:
        samples.append(memory_mb(router))
        time.sleep(0.5)  # NOLINT(sally-sleep): between two looks at another process
    assert run.returncode == 0, run.stdout.read()
    half, last = samples[len(samples) // 2], samples[-1]
    quarter = samples[len(samples) // 4]
    print(f"{CIRCUITS} circuits in {len(samples) / 2:.0f} s: router {samples[0]:.1f} MiB at first, {quarter:.1f} at a quarter, {half:.1f} at half, {last:.1f} at the end")
    # Flat: what the second half adds is noise of the allocator, not of circuits.
    assert last - half < 1.0, samples[:: max(1, len(samples) // 40)]
