#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: figures of this build beside a bare TLS relay and haproxy, in the same run.

usage: bench.py [--only REGEX] [--runs N] [--out FILE] [--list] [--profile FOLDER]
Prints a table, writes build/bench.json. README.md says what each figure is and how far to trust it.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(ROOT / "tests/integration"))

import figures  # noqa: E402
from rig import Rig  # noqa: E402


def enter_namespace():
    """A network of our own: loopback only, no foreign traffic, its own congestion control."""
    if os.environ.get("SALLY_BENCH_NS") == "1":
        return
    os.environ["SALLY_BENCH_NS"] = "1"
    command = ["unshare", "--net", sys.executable, *sys.argv]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    os.execvp(command[0], command)


def print_table(results, header):
    print(f"OpenSSL {header['openssl']}, kernel {header['kernel']}, {header['cores']} cores, AES-128-GCM {header['aes_128_gcm_gb_per_s']:.1f} GB/s, "
          f"memcpy {header['memcpy_gb_per_s']:.1f} GB/s, {header['congestion_control']}")
    rows = [("figure", "value", "unit", "ratio", "to", "n", "spread", "goal", "")]
    for f in results:
        ratio = "" if f["ratio"] is None else f"{f['ratio']:.2f}"
        met = {True: "met", False: "MISSED", None: ""}[f["met"]]
        rows.append((f["name"], f"{f['value']:.4g}", f["unit"], ratio, f["ratio_to"] or "", str(f["n"]), f"{100 * f['spread']:.0f} %", f["goal"] or "", met))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip())
    for f in results:
        if f.get("note"):
            print(f"  {f['name']}: {f['note']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", default=str(ROOT / "build/bench.json"))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--profile", default="", help="perf profiles of the router during each bulk and message run, into this folder")
    options = parser.parse_args()
    wanted = [g for g in figures.GROUPS if not options.only or any(re.search(options.only, name) for name in g.names)]
    if options.list:
        for group in figures.GROUPS:
            print("\n".join(group.names))
        return 0
    if not wanted:
        print(f"no figure matches {options.only}", file=sys.stderr)
        return 2
    enter_namespace()
    start = time.monotonic()
    failed = []
    rig = Rig(options.runs, options.profile)
    try:
        for group in wanted:
            print(f"[{time.monotonic() - start:4.0f} s] {', '.join(group.names)}", file=sys.stderr, flush=True)
            try:
                group.measure(rig)
            except Exception as error:  # one broken figure must not hide the others; it fails the run
                failed.append(f"{group.names[0]}: {error!r}")
                print(f"  FAILED: {error!r}", file=sys.stderr, flush=True)
        results = rig.results
        header = rig.header()
    finally:
        rig.close()
    print_table(results, header)
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([{"name": "header", **header, "seconds": round(time.monotonic() - start), "failed": failed}, *results], indent=1) + "\n")
    print(f"{len(results)} figures, {sum(f['met'] is False for f in results)} goals missed, {len(failed)} not measured; {out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
