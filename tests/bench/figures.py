# SPDX-License-Identifier: Apache-2.0
"""The figures of make bench, in groups that share their runs."""
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from statistics import median
from typing import Callable

import harness
from harness import Admin
from revocations import Sitting, quantile
from rig import BIN, cpu_seconds, loud, memory_kb, quiet


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
    bare = per_gb(runs["bare"])
    # The goal is from a machine on which the bare relay took 0.65: there this would be about
    scaled = median(total) / median(bare) * 0.65
    note = f"host agent {parts[0]}, router {parts[1]}, client agent {parts[2]}; {scaled:.2f} where the bare relay takes 0.65; {loud(*runs.values())}".rstrip("; ")
    rig.add("chain_bulk_cpu_per_gb", total, "CPU-s/GB", "<= 1.9", "bare_relay", bare, note=note)


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


# ---- memory: exact, so few runs; each on a network that has done nothing before


def at_rest_kb(pid):
    """Its memory once that has not changed for a second: what starting needed is given back."""
    seen = [memory_kb(pid)]
    while len(seen) < 100 and not (len(seen) >= 10 and len(set(seen[-10:])) == 1):
        time.sleep(0.1)  # NOLINT(sally-sleep): between two looks at another process
        seen.append(memory_kb(pid))
    return seen[-1]


@group("rss_rest_router_mb", "rss_rest_controller_mb")
def rest(rig):
    router, controller = [], []
    for _ in range(3):
        with rig.fresh_network() as net:
            router.append(at_rest_kb(net.pid("sally-router")) / 1024)
            controller.append(at_rest_kb(net.pid("sally-controller")) / 1024)
    rig.add("rss_rest_router_mb", router, "MiB", "<= 15")
    rig.add("rss_rest_controller_mb", controller, "MiB", "<= 40")


@group("rss_idle_lane_kb")
def idle_lanes(rig):
    values = []
    for _ in range(2):
        with rig.fresh_network() as net:
            device = net.device("lane", ["dial"], run=False)
            run = rig.load("lanes", "--identity", device.identity, "--routers", rig.sources, "--port", net.router_port, "--watch", net.pid("sally-router"), "--count", 5000)
            values.append(run["kb_per_lane"])
    rig.add("rss_idle_lane_kb", values, "KiB", "<= 30", note="router's memory per lane at 5,000 idle lanes; the kernel's sockets not counted")


@group("router_bytes_idle_circuit", "end_kb_idle_circuit")
def idle_circuits(rig):
    router, end, bare = [], [], []
    with rig.fresh_network() as net:  # once: 100 s of CPU, and the same to 1 %
        net.sally("service", "add", "flow", "--host", "#host", "--allow", "#dial")
        host, dialer = net.device("host", ["host"], run=False), net.device("dialer", ["dial"], run=False)
        run = rig.load("circuits", "--host", host.identity, "--dialer", dialer.identity, "--service", "flow", "--routers", rig.sources, "--port", net.router_port,
                       "--watch", net.pid("sally-router"), "--count", 10_000)
        router.append(run["router_bytes"])
        end.append(run["end_kb"])
    bare.append(rig.load("sessions", "--dir", rig.dir)["kb_per_session"])
    rig.add("router_bytes_idle_circuit", router, "bytes", "<= 300", note="at 10,000 idle circuits over 64 lanes")
    rig.add("end_kb_idle_circuit", end, "KiB", None, "bare inner TLS session", bare, note=f"mean of dialing and hosting end; the bare session {median(bare):.1f} KiB")


# ---- handshakes, dials, control plane


@group("handshakes_per_cpu_s")
def handshakes(rig):
    device = rig.device("lane", ["dial"])
    net = rig.network()
    runs = rig.alternate({
        "router": lambda: rig.load("handshakes", "--identity", device.identity, "--routers", rig.sources, "--port", net.router_port, "--watch", rig.router_pid(), "--count", 800),
        "bare": lambda: rig.load("sessions", "--dir", rig.dir, "--count", 600),
    })
    per_s = [r["count"] / r["cpu"][0] for r in runs["router"]]
    bare = [1000 / r["server_ms"] for r in runs["bare"]]
    rig.add("handshakes_per_cpu_s", per_s, "1/CPU-s", None, "bare server handshake in memory", bare,
            note="router's CPU from accept to lane down: TCP, mutual handshake, both hellos, one card; " + loud(runs["router"]))


def dials_args(rig, **options):
    host, dialer, net = rig.device("host", ["host"]), rig.device("dialer", ["dial"]), rig.network()
    args = ["--service", rig.service(), "--host", host.identity, "--dialer", dialer.identity, "--routers", rig.sources, "--port", net.router_port,
            "--watch", f"{rig.router_pid()},{rig.controller_pid()}"]
    for name, value in options.items():
        args += [f"--{name}", value]
    return args


@group("dials_per_core_s", "dial_cpu_ms", "dial_cpu_all_ms")
def dials(rig):
    runs = [rig.load("dials", *dials_args(rig, lanes=16, count=1000)) for _ in range(rig.runs)]
    runs = quiet(runs)
    rig.add("dials_per_core_s", [r["count"] / sum(r["cpu"]) for r in runs], "1/CPU-s", ">= 700",
            note=f"per CPU second of router and controller, real inner handshakes at both ends, 16 in flight; {loud(runs)}".rstrip("; "))
    rig.add("dial_cpu_ms", [sum(r["cpu"]) / r["count"] * 1e3 for r in runs], "ms",
            note=f"router and controller, opening and orderly end; controller {median([r['cpu'][1] / r['count'] * 1e3 for r in runs]):.3f}")
    rig.add("dial_cpu_all_ms", [(sum(r["cpu"]) + r["own_cpu"]) / r["count"] * 1e3 for r in runs], "ms", note="with both ends: proofs, checks, inner handshake")


@group("dial_p50_over_path_rtt", "dial_p50_ms")
def dial_latency(rig):
    """5 ms each way between each end and the router: 20 ms from end to end and back."""
    port = harness.free_ports(1)[0]
    rig.router_pid()
    proxy = subprocess.Popen([str(BIN / "bench_load"), "delay", "--listen", str(port), "--target", str(rig.network().router_port), "--us", "5000"], stdout=subprocess.PIPE)
    try:
        assert proxy.stdout.readline()
        through = {"routers": "127.0.0.1", "port": port, "lanes": 1, "count": 60}
        runs = rig.alternate({
            "dial": lambda: rig.load("dials", *dials_args(rig, **through)),
            "ping": lambda: rig.router_flow("--kind", "ping", "--host-router", f"127.0.0.1:{port}", "--dialer-router", f"127.0.0.1:{port}", "--warm", 0.3, "--seconds", 1.5),
        })
    finally:
        proxy.terminate()
        proxy.wait(10)
    dial, rtt = [r["p50_us"] / 1e3 for r in runs["dial"]], [r["rtt_p50_us"] / 1e3 for r in runs["ping"]]
    rig.add("dial_p50_over_path_rtt", [d / median(rtt) for d in dial], "x", "<= 1.2", note=f"round trip of a message on the same path {median(rtt):.1f} ms (delaying proxy); {loud(runs['dial'])}".rstrip("; "))
    rig.add("dial_p50_ms", dial, "ms")


@group("revocation_cpu_ms_at_100k")
def many_revoked(rig):
    runs = [rig.load("revoked", "--known", 100_000, "--count", 200) for _ in range(rig.runs)]
    rig.add("revocation_cpu_ms_at_100k", [r["p50_ms"] for r in runs], "ms", "<= 1",
            note=f"one more revoked device where 100,000 are: entry made, signed, verified, enforced, kept on disk, confirmed; p99 {median([r['p99_ms'] for r in runs]):.2f} ms")


@group("revoke_p99_ms", "revoke_p50_ms", "revoke_last_byte_p99_ms")
def revocations(rig):
    over, last_byte = [], []
    with rig.fresh_network() as net:
        routers = [f"127.0.0.1:{net.router_port}", *(net.router(f"router-{i}").address for i in range(2, 5))]
        for run in range(min(rig.runs, 3)):
            sitting = Sitting(net, routers, count=100, flows=10, prefix=f"gone-{run}")
            try:
                times = sitting.revoke_all()
            finally:
                sitting.close()
            over.append([1e3 * t["over"] for t in times])
            last_byte.append([1e3 * t["last_byte"] for t in times])
    note = "100 devices x 10 paced flows over 4 routers on this machine, one device every 50 ms: from the call's answer to the end of the device's last flow at its sink"
    rig.add("revoke_p99_ms", [quantile(v, 0.99) for v in over], "ms", "<= 250", note=note)
    rig.add("revoke_p50_ms", [quantile(v, 0.5) for v in over], "ms", "<= 50")
    rig.add("revoke_last_byte_p99_ms", [quantile(v, 0.99) for v in last_byte], "ms", note="to the last byte that arrived")


@group("create_device_cpu_ms", "create_device_cli_cpu_ms", "enrol_cpu_ms")
def control_plane(rig):
    net, pid = rig.network(), rig.controller_pid()
    create, cli, enrol = [], [], []
    with Admin(net) as admin:
        for i in range(rig.runs):
            admin.create(f"warm-{i}")
            cpu = cpu_seconds(pid)
            for j in range(100):
                admin.create(f"made-{i}-{j}")
            create.append((cpu_seconds(pid) - cpu) / 100 * 1e3)
            tokens = []
            cpu = cpu_seconds(pid)
            for j in range(20):
                tokens.append(net.sally("device", "add", f"cli-{i}-{j}", "--tag", "made")[0]["token"])
            cli.append((cpu_seconds(pid) - cpu) / 20 * 1e3)
            cpu = cpu_seconds(pid)
            for j, token in enumerate(tokens):
                harness.sally("join", token, "--dir", rig.dir / f"join-{i}-{j}", "--no-run")
            enrol.append((cpu_seconds(pid) - cpu) / 20 * 1e3)
    rig.add("create_device_cpu_ms", create, "ms", "<= 1.5", note="POST /fleet/v1/devices on one connection: check, token signed, audit and change log, committed with fsync")
    rig.add("create_device_cli_cpu_ms", cli, "ms", note="the same by `sally device add`: a new mutual TLS connection each time")
    rig.add("enrol_cpu_ms", enrol, "ms", "<= 1.5", note="`sally join`: new connections, token, proof of the key, certificate issued, audited, committed")


@group("certificates_per_core_s", "certificates_per_s_one_by_one", "renewals_peak_over_mean")
def renewals(rig):
    """The door of renewals over a database on this disk; the schedule in a simulation with its own clock."""
    def issue(batch):
        return json.loads(subprocess.run([str(BIN / "bench_issue"), str(rig.dir), "4000", str(batch)], capture_output=True, text=True, check=True).stdout)

    runs = rig.alternate({"shared": lambda: issue(64), "alone": lambda: issue(1)})
    shared, alone = runs["shared"], runs["alone"]
    wall = median([r["count"] / r["seconds"] for r in shared])
    rig.add("certificates_per_core_s", [r["count"] / r["own_cpu"] for r in shared], "1/CPU-s", ">= 1000",
            note=f"renewals: signatures checked, issued, audited, 64 in a commit with fsync; {wall:.0f} a second by the clock")
    rig.add("certificates_per_s_one_by_one", [r["count"] / r["seconds"] for r in alone], "1/s", note="a commit for each: what the disk's fsync allows")
    simulation = BIN.parents[1] / "dev/bin/year_test"  # counts, not times: as the tests build it
    text = subprocess.run([str(simulation), "--gtest_filter=Year.TenThousand*"], capture_output=True, text=True, check=True).stdout
    peak = float(re.search(r'"renewals_peak_over_mean":([0-9.]+)', text).group(1))
    rig.add("renewals_peak_over_mean", [peak], "x", "<= 1.5", note="10,000 agents enrolled in one second, lives of 6 h: the fullest minute over the mean one")
