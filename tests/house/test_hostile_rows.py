# SPDX-License-Identifier: Apache-2.0
"""Every row of tests/hostile/README.md has tests of its name, or says why it concerns nothing here; and no row is forgotten."""
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("GHSA-mrpr-756c-xm47", "GHSA-hhm9-wf63-g7qj", "GHSA-cc5m-7mhm-xh9f", "GHSA-7868-235p-7497", "GHSA-4h58-w989-xgg4", "GHSA-6v5r-p2wr-q492", "GHSA-whjr-3j94-gw3c",
        "GHSA-q8g9-jc4c-jp6q", "GHSA-j952-6x8x-jmj6", "GHSA-354c-gpg9-j988", "4010", "3927", "4330", "4332", "4336", "4234", "4240", "4420", "group-secrets", "console-upload")


def plain(text):
    return re.sub(r"[^a-z0-9]", "", text.lower())


def names():
    """Names of all tests, C++ and Python."""
    found = set()
    for path in ROOT.glob("tests/**/test_*.py"):
        if path != Path(__file__).resolve():
            found |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.M))
    for path in [*ROOT.glob("tests/sim/*_test.cc"), *ROOT.glob("src/**/*_test.cc")]:
        found |= set(re.findall(r"^TEST(?:_[PF])?\(\w+,\s*(\w+)\)", path.read_text(), re.M))
    return {plain(name) for name in found}


def table():
    rows = re.findall(r"^\| (\S+) \| .* \| (.*) \|$", (ROOT / "tests/hostile/README.md").read_text(), re.M)
    return {row: where for row, where in rows if row != "row"}


def test_no_row_is_forgotten_and_none_is_ours_alone():
    assert tuple(table()) == ROWS


def test_every_row_is_tested_under_its_name_or_says_why_not():
    all_names = names()
    for row, where in table().items():
        tests = [n for n in all_names if plain(row) in n]
        if where.startswith("not applicable: "):
            assert not tests and len(where) > 30, row
        else:
            assert tests, f"no test is named after {row}"
