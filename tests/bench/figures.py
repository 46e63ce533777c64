# SPDX-License-Identifier: Apache-2.0
"""The figures of make bench, in groups that share their runs."""
import os
from dataclasses import dataclass
from statistics import median
from typing import Callable

import harness
from rig import loud


@dataclass
class Group:
    names: list
    measure: Callable


GROUPS = []


def group(*names):
    def register(function):
        GROUPS.append(Group(list(names), function))
        return function

    return register


def per_gb(results, which=slice(0, 1)):
    return [sum(r["cpu"][which]) / r["bytes"] * 1e9 for r in results]


@group("router_bulk_cpu_per_gb", "router_bulk_cpu_per_gb_vs_haproxy", "bare_relay_cpu_per_gb", "haproxy_cpu_per_gb")
def bulk(rig):
    args = ("--kind", "bulk", "--size", 16346)
    runs = rig.alternate({
        "router": lambda: rig.router_flow(*args),
        "bare": lambda: rig.rival("bare_relay").flow(rig, *args),
        "haproxy": lambda: rig.rival("haproxy").flow(rig, *args),
    })
    router, bare, haproxy = (per_gb(runs[k]) for k in ("router", "bare", "haproxy"))
    rate = sorted(r["bytes"] * 8 / r["seconds"] / 1e9 for r in runs["router"])[len(runs["router"]) // 2]
    note = f"{rate:.1f} Gbit/s; {loud(*runs.values())}".rstrip("; ")
    rig.add("router_bulk_cpu_per_gb", router, "CPU-s/GB", "<= 1.15", "bare_relay", bare, "ratio", note)
    rig.add("router_bulk_cpu_per_gb_vs_haproxy", router, "CPU-s/GB", "< 1", "haproxy", haproxy, "ratio")
    rig.add("bare_relay_cpu_per_gb", bare, "CPU-s/GB")
    rig.add("haproxy_cpu_per_gb", haproxy, "CPU-s/GB", None, "bare_relay", bare)


@group("chain_bulk_cpu_per_gb")
def chain(rig):
    """agent - router - agent, local TCP at both ends; CPU of the three processes together."""
    net = rig.network()
    host, client = rig.device("chain-host", ["chain-host"], run=True), rig.device("chain-client", ["chain-client"], run=True)
    target = harness.free_ports(1)[0]
    net.expose(target, "chain", host, "#chain-client")
    harness.wait_for(lambda: client.sees("chain"), what="the service at the client")
    port = client.forward("chain")
    pids = [harness.pids_of(host.dir)["sally-agent"][0], rig.router_pid(), harness.pids_of(client.dir)["sally-agent"][0]]
    args = ("--kind", "bulk", "--size", 65536)
    runs = rig.alternate({
        "chain": lambda: rig.load("flow", "--via", "tcp", "--connect", port, "--listen", target, "--watch", ",".join(map(str, pids)), *args),
        "bare": lambda: rig.rival("bare_relay").flow(rig, "--kind", "bulk", "--size", 16346),
    })
    total = per_gb(runs["chain"], slice(0, 3))
    parts = [f"{median(per_gb(runs['chain'], slice(i, i + 1))):.2f}" for i in range(3)]
    note = f"host agent {parts[0]}, router {parts[1]}, client agent {parts[2]}; {loud(*runs.values())}".rstrip("; ")
    rig.add("chain_bulk_cpu_per_gb", total, "CPU-s/GB", "<= 1.9", "bare_relay", per_gb(runs["bare"]), note=note)


def per_message_us(results):
    return [r["cpu"][0] / r["pieces"] * 1e6 for r in results]


@group("small_message_cpu_us_1", "small_message_cpu_us_64", "haproxy_message_cpu_us_1", "haproxy_message_cpu_us_64")
def messages(rig):
    """100-byte messages, each a TLS record (and with us a frame) of its own, sent as fast as they are taken."""
    for streams in (1, 64):
        args = ("--kind", "messages", "--size", 100, "--streams", streams)
        runs = rig.alternate({
            "router": lambda args=args: rig.router_flow(*args),
            "haproxy": lambda args=args: rig.rival("haproxy").flow(rig, *args),
        })
        rate = median([r["pieces"] / r["seconds"] for r in runs["router"]])
        note = f"{rate / 1000:.0f} k messages/s; {loud(*runs.values())}".rstrip("; ")
        haproxy = per_message_us(runs["haproxy"])
        rig.add(f"small_message_cpu_us_{streams}", per_message_us(runs["router"]), "us", "<= 1.5", "haproxy", haproxy, note=note)
        rig.add(f"haproxy_message_cpu_us_{streams}", haproxy, "us")


@group("ping_rtt_us_one_core", "ping_cpu_us", "haproxy_ping_rtt_us_one_core", "bare_relay_ping_rtt_us_one_core")
def ping(rig):
    """64 bytes there and back, one at a time, every process on one core: no wake-up of a sleeping core in it."""
    core = os.cpu_count() - 1
    args = ("--kind", "ping", "--size", 64, "--seconds", 1.5, "--warm", 0.3)
    pids = [rig.router_pid(), rig.rival("haproxy").pid, rig.rival("bare_relay").pid]
    for pid in pids:
        rig.pin(pid, core)
    try:
        runs = rig.alternate({
            "router": lambda: rig.router_flow(*args, core=core),
            "haproxy": lambda: rig.rival("haproxy").flow(rig, *args, core=core),
            "bare": lambda: rig.rival("bare_relay").flow(rig, *args, core=core),
        })
    finally:
        for pid in pids:
            rig.pin(pid, None)
    p50 = {k: [r["rtt_p50_us"] for r in v] for k, v in runs.items()}
    p99 = median([r["rtt_p99_us"] for r in runs["router"]])
    rig.add("ping_rtt_us_one_core", p50["router"], "us", "< 1", "haproxy", p50["haproxy"], "ratio", f"p99 {p99:.0f} us; {loud(*runs.values())}".rstrip("; "))
    rig.add("ping_cpu_us", [r["cpu"][0] / r["pieces"] * 1e6 for r in runs["router"]], "us", None, "haproxy", [r["cpu"][0] / r["pieces"] * 1e6 for r in runs["haproxy"]],
            note="of the router alone, per round trip")
    rig.add("haproxy_ping_rtt_us_one_core", p50["haproxy"], "us", None, "bare_relay", p50["bare"])
    rig.add("bare_relay_ping_rtt_us_one_core", p50["bare"], "us")


@group("streams_64_over_1", "streams_64_slowest_share", "bare_relay_streams_64_over_1")
def streams(rig):
    args = ("--kind", "bulk", "--size", 16346)
    many = (*args, "--streams", 64, "--warm", 1.0)
    runs = rig.alternate({
        "one": lambda: rig.router_flow(*args),
        "many": lambda: rig.router_flow(*many),
        "bare_one": lambda: rig.rival("bare_relay").flow(rig, *args),
        "bare_many": lambda: rig.rival("bare_relay").flow(rig, *many),
    })
    one, many_gb = per_gb(runs["one"]), per_gb(runs["many"])
    rig.add("streams_64_over_1", many_gb, "CPU-s/GB", "<= 1.10", "1 stream", one, "ratio", loud(*runs.values()))
    rig.add("streams_64_slowest_share", [r["slowest_share"] for r in runs["many"]], "of fair", ">= 0.5")
    rig.add("bare_relay_streams_64_over_1", per_gb(runs["bare_many"]), "CPU-s/GB", None, "1 stream", per_gb(runs["bare_one"]))
