#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom, by cmake/layers.txt, and what no source of ours may contain.

usage: scripts/check_layers.py [ROOT]     ROOT: the checkout (default: this one)

Prints one line per offence, "file:line: what", and exits 1; prints one summary line and exits 0 otherwise.
"""
import re
import sys
from pathlib import Path

# Library of cmake/layers.txt -> headers that only its folders may include.
LIBRARIES = {
    "openssl": r"openssl/",
    "sodium": r"sodium(\.h|/)",
    "uv": r"uv(\.h|/)",
    "sqlite": r"sqlite3(ext)?\.h",
    "pq": r"(libpq-fe\.h|libpq/|postgresql/)",
    "protozero": r"protozero/",
    "toml": r"toml(\+\+|\.hpp|/)",
    "llhttp": r"llhttp(\.h|/)",
    "json": r"boost/json",
    "cli11": r"CLI/",
    "qrencode": r"qrencode\.h",
    "yaml": r"yaml-cpp/",
    "curl": r"curl/",
    "jose": r"jose/",
    "zstd": r"zstd(\.h|/)",
    "ftxui": r"ftxui/",
}
# Narrower than the folder.
ONLY_UNDER = {"sqlite": "store/sqlite/", "pq": "store/postgres/"}
# Never in src/ or include/: they cost megabytes, locales or seconds of compile time.
FORBIDDEN_HEADERS = {
    "iostream", "locale", "regex", "format", "print", "codecvt", "syncstream", "bits/stdc++.h",
    "boost/json/src.hpp", "boost/asio.hpp",
}
# Never in the text of src/, include/, apps/ (comments and strings aside).
FORBIDDEN_WORDS = [
    (r"\bthrow\b(?!\s*\(\s*\))", "our code throws nothing"),
    (r"\bstd::(format|print|println|regex|locale|cout|cerr|clog|endl)\b", "see FORBIDDEN_HEADERS"),
    (r"\b(system|popen|gets|strcpy|strcat|sprintf|vsprintf|tmpnam|mktemp|strtok|alloca)\s*\(", "unsafe function"),
    (r"\busing\s+namespace\s+std\s*;", "no using namespace std"),
    (r"\bdynamic_cast\b", "no run-time type tests"),
]
# Never in a test: time comes from a fake clock or from an event. A moment that must be real (killing a process at a random
# one) says so on its line: NOLINT(sally-sleep): why.
FORBIDDEN_IN_TESTS = [
    (r"\b(sleep_for|sleep_until|usleep|nanosleep)\b|(?<![\w.:>])sleep\s*\(", "tests do not sleep"),
]
# Never anywhere in a source, comments included.
FORBIDDEN_ANYWHERE = [
    (r"\b(TODO|FIXME|XXX|HACK)\b", "finish it or write it into the status table"),
    (r"/home/[a-z]", "a path of one machine"),
    (r"NOLINT(?!NEXTLINE\(|BEGIN\(|END\(|\()", "NOLINT must name its check"),
]
# Tests and headers for tests may use these besides.
TEST_HEADERS = r"(gtest|gmock)/"


def read_layers(root):
    layers = {}
    for line in (root / "cmake/layers.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, folders, libraries = (part.strip() for part in line.split(":"))
        layers[name] = (folders.split(), libraries.split())
    return layers


def strip_code(text):
    """Comments and string literals become blanks; lines stay where they are."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Fa-f])\'(?:\\.|[^\'\\\n])+\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def is_test(path):
    return bool(re.search(r"_(test|fuzz|bench)\.cc$", path.name)) or path.name.startswith("test_")


def check_include(root, layers, path, folder, header, offend):
    libraries = layers[folder][1]
    for library, pattern in LIBRARIES.items():
        if not re.match(pattern, header):
            continue
        if library not in libraries:
            offend(f"{folder} may not include <{header}>: layers.txt gives it {' '.join(libraries) or 'no library'}")
        under = ONLY_UNDER.get(library)
        if under and not is_test(path) and not path.relative_to(root / "src").as_posix().startswith(under):
            offend(f"<{header}> only under src/{under}")
        return
    if header in FORBIDDEN_HEADERS:
        offend(f"<{header}> is forbidden in src/")
    elif header.startswith("boost/"):
        offend(f"<{header}>: of Boost only boost/json, where layers.txt says json")
    elif header.startswith("fmt/") and path.suffix != ".cc":
        offend(f"<{header}> in .cc files only")
    elif re.match(TEST_HEADERS, header) and not is_test(path):
        offend(f"<{header}> in tests only")
    elif header.startswith("sally/") and folder != "sdk" and "sdk-abi" not in layers[folder][0]:
        offend(f"{folder} may not include <{header}>")
    elif "/" in header and (root / "src" / header.split("/")[0]).is_dir() and (root / "src" / header).exists():
        offend(f'<{header}> is ours: write "{header}"')


def check_file(root, layers, path, offences):
    text = path.read_text(encoding="utf-8", errors="replace")
    relative = path.relative_to(root)

    def offend_at(line):
        return lambda what: offences.append(f"{relative}:{line}: {what}")

    folder = relative.parts[1] if relative.parts[0] == "src" and len(relative.parts) > 2 else None
    if folder is not None and folder not in layers:
        offend_at(1)(f"folder {folder} is not in cmake/layers.txt")
        folder = None
    for number, line in enumerate(text.splitlines(), 1):
        offend = offend_at(number)
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match and folder is not None:
            kind, header = match.groups()
            if kind == "<":
                check_include(root, layers, path, folder, header, offend)
            else:
                target = header.split("/")[0]
                if "/" not in header or ".." in header.split("/"):
                    offend(f'"{header}": write the path from src/')
                elif target != folder and target not in layers[folder][0]:
                    offend(f"{folder} may not include {target} ({header})")
                elif target not in layers:
                    offend(f'"{header}": no such folder in cmake/layers.txt')
        elif match and relative.parts[0] == "include" and match.group(2) in FORBIDDEN_HEADERS:
            offend(f"<{match.group(2)}> is forbidden in include/")
        for pattern, why in FORBIDDEN_ANYWHERE:
            if re.search(pattern, line):
                offend(f"{re.search(pattern, line).group()}: {why}")
    testing = is_test(path) or relative.parts[0] == "tests"
    rules = FORBIDDEN_IN_TESTS if testing else FORBIDDEN_WORDS if relative.parts[0] in ("src", "apps") else []
    raw = text.splitlines()
    for number, line in enumerate(strip_code(text).splitlines(), 1):
        if re.match(r"\s*#\s*include", line) or re.search(r"NOLINT\(sally-sleep\): \w", raw[number - 1]):
            continue
        for pattern, why in rules:
            found = re.search(pattern, line)
            if found:
                offend_at(number)(f"{found.group().strip()}: {why}")


def check_reach(layers, offences):
    """The table itself: layers point downwards, and no path leads from the data plane to SQL."""
    seen = []
    for name, (folders, _) in layers.items():
        for f in folders:
            if f != "sdk-abi" and f not in seen:
                offences.append(f"cmake/layers.txt:1: {name} uses {f}, which does not stand above it")
        seen.append(name)

    def reach(name, done):
        for f in layers.get(name, ([], []))[0]:
            f = "sdk" if f == "sdk-abi" else f
            if f not in done:
                done.add(f)
                reach(f, done)
        return done

    for plane in ("router", "agent", "sdk"):
        for f in sorted(reach(plane, {plane} & layers.keys())):
            if {"sqlite", "pq"} & set(layers[f][1]):
                offences.append(f"cmake/layers.txt:1: {plane} reaches {f}, which links SQL")


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent).resolve()
    layers = read_layers(root)
    offences = []
    check_reach(layers, offences)
    files = [p for d in ("src", "include", "apps", "tests", "examples") if (root / d).is_dir()
             for p in sorted((root / d).rglob("*")) if p.suffix in (".cc", ".h", ".hpp", ".c")]
    for path in files:
        check_file(root, layers, path, offences)
    for line in offences:
        print(line)
    print(f"layers: {len(files)} files, {len(offences)} offences")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
