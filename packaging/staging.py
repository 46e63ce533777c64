# SPDX-License-Identifier: Apache-2.0
"""Folders that become packages: copies with fixed modes, and everything of one time."""
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("sally", "sally-controller", "sally-router", "sally-agent")
DAEMONS = ("controller", "router", "agent")


def version():
    return re.search(r"project\(sallyport VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)


def epoch():
    """Time of everything in the packages: SOURCE_DATE_EPOCH, which `make package` sets to the last commit's."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    if shutil.which("git"):
        git = subprocess.run(["git", "-c", "safe.directory=*", "log", "-1", "--format=%ct"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        if git.returncode == 0:
            return int(git.stdout)
    raise SystemExit("package: no git here: set SOURCE_DATE_EPOCH")


def put(source, target, mode=0o644):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)
    return target


def write(text, target, mode=0o644):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)
    return target


def strip(binary, shared=False, tool="strip"):
    subprocess.run([tool, "--strip-unneeded" if shared else "--strip-all", "--remove-section=.comment", "--remove-section=.note", binary], check=True)


def settle(folder, when):
    """One time and one mode for all of a folder."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        os.utime(path, (when, when), follow_symlinks=False)
    folder.chmod(0o755)
    os.utime(folder, (when, when))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def docs():
    """Name in the package's documentation folder -> file."""
    found = {p.name: p for p in (ROOT / "docs").glob("*.md")}
    return found | {name: ROOT / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md")}
