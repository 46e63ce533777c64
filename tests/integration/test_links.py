# SPDX-License-Identifier: Apache-2.0
"""What the built programs are linked with: the process split and the size promises, seen from outside."""
import re
import subprocess
from pathlib import Path

import pytest

BIN = Path(__file__).resolve().parents[2] / "build/release/bin"
PROGRAMS = ["sally", "sally-agent", "sally-controller", "sally-router"]
SQL = r"lib(sqlite3|pq|mariadb)\b"


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed(name):
    return re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", program(name)))


def program(name):
    if not (BIN / name).exists():
        pytest.skip(f"{name} is not built")
    return str(BIN / name)


@pytest.mark.parametrize("name", ["sally-router", "sally-agent"])
def test_the_data_plane_links_no_sql(name):
    assert [lib for lib in needed(name) if re.match(SQL, lib)] == []


def test_the_check_can_fail():
    assert [lib for lib in needed("sally-controller") if re.match(SQL, lib)] != []


def test_the_agent_has_no_streams_locales_or_regexes():
    symbols = output("nm", "-DC", "--undefined-only", program("sally-agent"))
    assert re.findall(r"std::(?:__cxx11::)?(?:locale|ios_base|basic_[io]?stream|basic_regex)\S*", symbols) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_hardened(name):
    path = program(name)
    assert re.search(r"Type:\s+DYN", output("readelf", "-h", path)), "position independent"
    segments = output("readelf", "-lW", path)
    assert "GNU_RELRO" in segments
    assert not re.search(r"GNU_STACK\s.*RWE", segments), "no executable stack"
    assert re.search(r"BIND_NOW|\bNOW\b", output("readelf", "-d", path)), "no lazy binding"


def test_the_agent_is_small(tmp_path):
    stripped = tmp_path / "agent"
    output("strip", "-o", str(stripped), program("sally-agent"))
    assert stripped.stat().st_size <= 6 << 20
