# SPDX-License-Identifier: Apache-2.0
"""pkilint over files, in an environment of its own that is made once in the cache (lint/requirements.txt)."""
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent / "lint"


def _run(*args):
    done = subprocess.run(list(map(str, args)), capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    assert done.returncode == 0, f"{args}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def _python():
    """The interpreter that has pkilint; Debian's python3-cryptography is seen from there."""
    pinned = HERE / "requirements.txt"
    cache = Path("/var/cache" if os.geteuid() == 0 else os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sallyport"
    place = cache / f"pkilint-{hashlib.sha256(pinned.read_bytes() + sys.version.encode()).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "pkilint.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "whole").exists():
            shutil.rmtree(place, ignore_errors=True)
            _run(sys.executable, "-m", "venv", "--system-site-packages", place)
            _run(place / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", pinned)
            (place / "whole").touch()
    return place / "bin/python"


def findings(files):
    """{file name: {(severity, code, place)}} of certificates (.cer), lists (.crl) and OCSP answers (.ocsp) in DER."""
    said = json.loads(_run(_python(), HERE / "pkix.py", *files))
    return {Path(name).name: {tuple(one) for one in found} for name, found in said.items()}
