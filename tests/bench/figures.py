# SPDX-License-Identifier: Apache-2.0
"""The figures of make bench, in groups that share their runs."""
from dataclasses import dataclass
from typing import Callable

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
