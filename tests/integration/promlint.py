# SPDX-License-Identifier: Apache-2.0
"""The rules of `promtool check metrics` for the text format 0.0.4, which would bring 100 MB of Go into the root; where promtool is
installed it is asked as well."""
import math
import re
import shutil
import subprocess

NAME = re.compile(r"sally_[a-z0-9]+(_[a-z0-9]+)*")
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
BAD_UNITS = ("milliseconds", "microseconds", "nanoseconds", "ms", "us", "minutes", "hours", "days", "kilobytes", "megabytes", "bits", "percent", "kb", "mb")
MAX_SERIES = 2000


def parse(text):
    """{name: [(labels, value)]}; fails on what breaks a rule."""
    assert text.endswith("\n")
    types, helps, samples, current, seen_families = {}, {}, {}, None, set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, words = line.split(" ", 3)
            assert name not in helps and words.strip() and not re.search(r"\\[^\\n]", words), line
            helps[name] = words
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helps and name not in types and kind in ("counter", "gauge", "histogram"), line
            assert NAME.fullmatch(name), name
            assert (kind == "counter") == name.endswith("_total"), f"{name}: _total is for counters, all of them"
            assert not re.search(r"_(count|sum|bucket|counter|gauge|histogram)$", name), name
            parts = name.split("_")
            assert not any(p in BAD_UNITS for p in parts), f"{name}: base units are seconds and bytes"
            assert name not in seen_families
            types[name], current = kind, name
            seen_families.add(name)
            continue
        assert line and not line.startswith("#"), repr(line)
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, labels, value = match.groups()
        family = re.sub(r"_(bucket|sum|count)$", "", name) if types.get(current) == "histogram" else name
        assert family == current, f"{line}: not in its family"
        pairs = LABEL.findall(labels or "")
        assert "".join(f'{k}="{v}",' for k, v in pairs).rstrip(",") == (labels or "").rstrip(","), line
        keys = [k for k, _ in pairs]
        assert len(keys) == len(set(keys)) and all(k == "le" or re.fullmatch(r"[a-z_]+", k) for k in keys), line
        assert ("le" in keys) == name.endswith("_bucket"), line
        number = float(value)
        assert not math.isnan(number) and number >= 0, line
        series = samples.setdefault(name, {})
        key = tuple(sorted(pairs))
        assert key not in series, f"twice: {line}"
        series[key] = number
    assert set(types) == set(helps)
    assert sum(map(len, samples.values())) < MAX_SERIES
    for name, kind in types.items():
        if kind == "histogram" and name + "_bucket" in samples:
            buckets = {}
            for key, n in samples[name + "_bucket"].items():
                rest = tuple(p for p in key if p[0] != "le")
                buckets.setdefault(rest, []).append((float(dict(key)["le"]), n))
            for rest, list_ in buckets.items():
                ordered = sorted(list_)
                assert ordered == list_ and ordered[-1][0] == math.inf and [n for _, n in ordered] == sorted(n for _, n in ordered)
                assert samples[name + "_count"][rest] == ordered[-1][1] and rest in samples[name + "_sum"]
    promtool = shutil.which("promtool")
    if promtool:
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return samples


def value(samples, name, **labels):
    return samples.get(name, {}).get(tuple(sorted(labels.items())))
