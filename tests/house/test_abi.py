# SPDX-License-Identifier: Apache-2.0
"""scripts/abi: what would break a program that was linked before is refused."""
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "include/sally/sally.h"


def abi(header):
    return subprocess.run([ROOT / "scripts/abi", header], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def test_the_interface_is_what_was_recorded():
    done = abi(HEADER)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("was,becomes", [
    ("sally_stream_fd(sally_stream* stream)", "sally_stream_fd(sally_stream* stream, int flags)"),  # another signature
    ("SALLY_API const char* sally_version(void);", ""),  # a function less
    ("SALLY_E_TIMEOUT = -6", "SALLY_E_TIMEOUT = -60"),  # a code with another number
    ("SALLY_EVENT_DENIED = 4", "SALLY_EVENT_DENIED = 5"),
    ("uint64_t streams;", "uint32_t streams;"),  # a struct with another layout
])
def test_a_change_is_refused(tmp_path, was, becomes):
    text = HEADER.read_text()
    assert was in text
    changed = tmp_path / "sally.h"
    changed.write_text(text.replace(was, becomes))
    done = abi(changed)
    assert done.returncode == 1 and "abi: " in done.stdout, done.stdout
