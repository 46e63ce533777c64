# SPDX-License-Identifier: Apache-2.0
"""Every code that a program logs is in the table of docs/logs.md, with its level, and the other way round."""
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CALL = re.compile(r'\blog::(debug|info|warn|error)\(\s*("[^"]*"|[^"\s])', re.S)
LINE = re.compile(r'\blog::line\(\s*log::Level::k(Debug|Info|Warn|Error),\s*("[^"]*"|[^"\s])', re.S)  # for another program's log
ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \|", re.M)


def sources():
    for folder in ("src", "apps"):
        for path in sorted((ROOT / folder).rglob("*.cc")):
            if not path.name.endswith(("_test.cc", "_fuzz.cc")) and path.name != "log.cc":
                yield path, path.read_text()


def test_every_log_line_has_a_code_that_is_documented():
    said = {}
    for path, text in sources():
        for level, code in CALL.findall(text) + [(level.lower(), code) for level, code in LINE.findall(text)]:
            assert code.startswith('"'), f"{path}: the code of a log line is constant text"
            assert re.fullmatch(r'"[a-z]+\.[a-z_]+"', code), f"{path}: {code}"
            said.setdefault(code.strip('"'), set()).add(level)
    rows = ROW.findall((ROOT / "docs/logs.md").read_text())
    table = dict(rows)
    assert len(rows) == len(table), "a code is there twice"
    assert set(table) == set(said)
    assert {code: {level} for code, level in rows} == said


def test_a_code_begins_with_its_folder():
    for path, text in sources():
        for _, code in CALL.findall(text):
            assert code.strip('"').split(".")[0] == path.relative_to(ROOT / "src").parts[0], (path, code)
