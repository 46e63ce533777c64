# SPDX-License-Identifier: Apache-2.0
"""Many streams at once, and a reader that stalls. (tests/soak: the same, longer.)"""
import pytest
from streams import Service, _hash, beside_a_stalled_reader, hashed_streams


pytestmark = pytest.mark.measures


@pytest.fixture(scope="module")
def pair(net):
    return net.device("server"), net.device("pump", ["sensors"])


def test_64_streams_of_16_mb_arrive_whole(net, pair):
    server, pump = pair
    service = Service(_hash)
    try:
        net.expose(service.port, "hash", server, "#sensors")
        hashed_streams(pump.forward("hash"), 64, 16_000_000)
    finally:
        service.close()


def test_a_stalled_reader_slows_nobody(net, pair):
    seen = beside_a_stalled_reader(net, *pair, seconds=5)
    p99 = lambda times: times[int(len(times) * 0.99)]
    assert p99(seen["during"]) < max(5 * p99(seen["quiet"]), 20), (p99(seen["quiet"]), p99(seen["during"]))
    assert max(seen["rates"]) > 0.7 * seen["alone"], (seen["alone"], seen["rates"])
