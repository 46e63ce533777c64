# SPDX-License-Identifier: Apache-2.0
"""Go SDK to Go SDK through our router: everything a program does with a circuit, encrypted by the SDKs and not."""
import itertools
import time

import pytest
import ziti
from harness import Net, wait_for

MB = 1_000_000
numbers = itertools.count()


@pytest.fixture(scope="module")
def net():
    network = Net()
    yield network
    network.close()


@pytest.fixture(params=["compatible", "none"])
def pair(request, net, apps):
    """A host of one service of that kind, somebody who dials, the service's name."""
    name = f"{request.param}-{next(numbers)}"
    host, dialer = f"{name}-h", f"{name}-d"
    ziti.add_service(net, name, request.param, allow=[f"#{dialer}"], host=[f"#{host}"])
    return apps.add(host, [host], "-refresh", "1s"), apps.add(dialer, [dialer], "-refresh", "1s"), name


def test_ten_megabytes_each_way_at_once(pair):
    host, dialer, name = pair
    host.ask("host", name, "echo")
    dialer.ask("echo", name, 1, 10 * MB, 32 * 1024, timeout=120)
    assert host.await_event("caller", service=name)["from"]


def test_the_dialer_ends_first_and_hears_the_answer(pair):
    host, dialer, name = pair
    host.ask("host", name, "hash")
    got = dialer.ask("upload", name, 10 * MB, 100_000, timeout=120)
    assert got["said"] == got["sent"]


def test_the_host_ends_first_and_hears_the_rest(pair):
    host, dialer, name = pair
    host.ask("host", name, "greet", 3 * MB)
    got = dialer.ask("download", name, 2 * MB, timeout=120)
    read = host.await_event("read")
    assert (got["bytes"], got["sha256"]) == (3 * MB, read["sent"])
    assert (read["bytes"], read["sha256"]) == (2 * MB, got["sent"])


@pytest.mark.parametrize("size", [1, 2, 16_000, 70_000, MB, 15 * 1024 * 1024])
def test_messages_of_every_size(pair, size):
    host, dialer, name = pair
    host.ask("host", name, "echo")
    dialer.ask("echo", name, 1, 3 * size, size, timeout=120)


def test_sixty_four_circuits_at_once_on_one_context(pair):
    host, dialer, name = pair
    host.ask("host", name, "echo")
    dialer.ask("dial", name)  # else each of the 64 makes a connection of its own first: more than a device may have
    dialer.ask("echo", name, 64, 300_000, 10_000, timeout=120)
    assert len(host.events("caller")) == 65


def test_a_dial_that_cannot_be_says_why(pair, net, apps):
    host, dialer, name = pair
    with pytest.raises(ziti.Refused, match="no terminators"):
        dialer.ask("dial", name, 5)
    with pytest.raises(ziti.Refused, match="not found"):
        dialer.ask("dial", "no-such-service", 3)
    ziti.add_service(net, f"{name}-other", "none", allow=["#nobody"], host=["#nobody"])
    with pytest.raises(ziti.Refused, match="not found"):
        dialer.ask("dial", f"{name}-other", 3)
    with pytest.raises(ziti.Refused):
        dialer.ask("host", name, "echo", timeout=60)  # may dial, may not host
    host.ask("host", name, "echo")
    dialer.ask("dial", name)
    host.ask("unhost", name)
    with pytest.raises(ziti.Refused, match="no terminators"):
        dialer.ask("dial", name, 5)
    host.ask("host", name, "echo")
    dialer.ask("dial", name)


def flow_goes_on(app, name, rounds=20):
    seen = [app.ask("flow", name)["rounds"]]

    def far_enough():
        assert not app.events("flow-ended"), app.events("flow-ended")
        seen.append(app.ask("flow", name)["rounds"])
        return seen[-1] >= seen[0] + rounds

    try:
        wait_for(far_enough, 30, what="the flow goes on")
    except AssertionError as e:
        raise AssertionError(f"{e}: {seen[::20]}") from e


def test_a_flow_outlives_the_controller_and_a_change_of_tags(pair, net):
    host, dialer, name = pair
    host.ask("host", name, "echo")
    dialer.ask("hold", name)
    ziti.kill(net, "sally-controller")
    flow_goes_on(dialer, name, 50)
    wait_for(net.routers_online, what="its router comes back to it")
    flow_goes_on(dialer, name)
    for app in ("-d", "-h"):
        net.sally("device", "tag", name + app, name + app, "one-more")
        flow_goes_on(dialer, name)
    assert len(dialer.events("logged-in")) == 1 and len(host.events("logged-in")) == 1


def test_the_next_certificate_under_a_running_flow(pair, net, apps):
    host, dialer, name = pair
    host.ask("host", name, "echo")
    dialer.ask("hold", name)
    for app, who in ((dialer, "-d"), (host, "-h")):
        new = apps.folder / f"{name}{who}/extended.json"
        app.ask("extend", new)
        app.ask("identity")
        states = sorted(c["state"] for c in net.sally("cert", "list", name + who, "--all"))
        assert states == ["active", "superseded"]
        flow_goes_on(dialer, name, 100)
    assert len(dialer.events("logged-in")) == 1 and len(host.events("logged-in")) == 1
    dialer.ask("dial", name)
    apps.run(apps.folder / f"{name}-d/extended.json").ask("dial", name)


def cut(net, dialer, name, *command):
    """Milliseconds from the command to the end of the flow."""
    dialer.ask("hold", name)
    flow_goes_on(dialer, name)
    start = time.time()
    net.sally(*command)
    return dialer.await_event("flow-ended")["at"] - start * 1000


@pytest.mark.parametrize("what", ["grant", "dialer", "host"])
def test_what_is_withdrawn_is_cut_within_a_second(pair, net, what):
    host, dialer, name = pair
    host.ask("host", name, "echo")
    command = {"grant": ("deny", f"#{name}-d", name), "dialer": ("revoke", "device", f"{name}-d", "--yes"), "host": ("revoke", "device", f"{name}-h", "--yes")}[what]
    assert cut(net, dialer, name, *command) <= 1000
    with pytest.raises(ziti.Refused):
        dialer.ask("dial", name, 5, timeout=60)


def test_a_host_binds_again_at_a_router_that_comes_back(pair, net):
    host, dialer, name = pair
    host.ask("host", name, "echo")
    dialer.ask("hold", name)
    ziti.kill(net, "sally-router")
    dialer.await_event("flow-ended")
    start = time.monotonic()

    def dials():
        try:
            return dialer.ask("dial", name, 3)
        except ziti.Refused:
            return None

    wait_for(dials, 20, "the next dial")
    assert time.monotonic() - start < 10
