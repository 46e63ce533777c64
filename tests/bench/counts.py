#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Instructions of the hot paths (hot_paths.cc) under callgrind, against counts.json. The last line is "N passed, N failed".

usage: counts.py [--update] [--keep FOLDER]
Red when one operation takes over 10 % more instructions than expected. --update writes what was counted; --keep leaves the
callgrind files for callgrind_annotate.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "counts.json"
BIN = Path(os.environ.get("SALLY_BIN", HERE.parents[1] / "build/release/bin"))
ALLOWED = 0.10


def count(folder):
    """Instructions per operation, by name."""
    done = subprocess.run(["valgrind", "--tool=callgrind", "--collect-atstart=no", f"--callgrind-out-file={folder}/callgrind.out", str(BIN / "hot_paths")],
                          capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    counts = {}
    for path in Path(folder).glob("callgrind.out.*"):
        text = path.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (\S+) (\d+)", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
        counts[name.group(1)] = round(int(total.group(1)) / int(name.group(2)))
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--keep", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sally-counts-") as temporary:
        folder = options.keep or temporary
        Path(folder).mkdir(parents=True, exist_ok=True)
        for old in Path(folder).glob("callgrind.out*"):
            old.unlink()
        counted = count(folder)
    if options.update:
        EXPECTED.write_text(json.dumps(counted, indent=2, sort_keys=True) + "\n")
        print(json.dumps(counted, indent=2, sort_keys=True))
        return 0
    expected = json.loads(EXPECTED.read_text())
    passed = failed = 0
    for name in sorted({*expected, *counted}):
        if name not in counted or name not in expected:
            print(f"{name}: {'not counted' if name in expected else 'not in counts.json: counts.py --update'}")
            failed += 1
            continue
        change = counted[name] / expected[name] - 1
        verdict = "RED" if change > ALLOWED else "ok"
        hint = "; much less than expected: counts.py --update keeps it so" if change < -ALLOWED else ""
        print(f"{name:20} {counted[name]:>12,} instructions, expected {expected[name]:>12,} ({100 * change:+.1f} %) {verdict}{hint}")
        passed, failed = (passed, failed + 1) if change > ALLOWED else (passed + 1, failed)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
