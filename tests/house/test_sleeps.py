# SPDX-License-Identifier: Apache-2.0
"""Tests in Python do not sleep for luck either: a sleep says on its line what it is instead (C++: scripts/check_layers.py)."""
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SLEEP = re.compile(r"\bsleep\(")
REASON = re.compile(r"# NOLINT\(sally-sleep\): \w")


def test_a_sleep_has_a_reason():
    lines = [(path, number, line) for path in TESTS.rglob("*.py") for number, line in enumerate(path.read_text().splitlines(), 1) if SLEEP.search(line)]
    assert len(lines) > 5, "the pattern finds them"
    assert [at for at in lines if not REASON.search(at[2]) and at[0].name != Path(__file__).name] == []
