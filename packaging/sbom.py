# SPDX-License-Identifier: Apache-2.0
"""What is inside a program, from the build itself: libraries from its dynamic section, static ones from the linker's map, headers
from the compiler's dependencies; name and version from dpkg. As CycloneDX 1.5."""
import json
import re
import shutil
import subprocess
import uuid
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

# By source package. A library that is not here stops the packaging: somebody has to read its licence first.
LICENCES = {
    "boost1.83": "BSL-1.0",
    "cli11": "BSD-3-Clause",
    "cross-toolchain-base": "LGPL-2.1-or-later",  # glibc for arm64
    "fmtlib": "MIT",
    "gcc-14": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "gcc-14-cross": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "glibc": "LGPL-2.1-or-later",
    "libsodium": "ISC",
    "libuv1": "MIT",
    "libzstd": "BSD-3-Clause",
    "node-undici": "MIT",  # llhttp
    "openssl": "Apache-2.0",
    "p11-kit": "BSD-3-Clause",  # its headers: the names of PKCS#11
    "protozero": "BSD-2-Clause",
    "qrencode": "LGPL-2.1-or-later",
    "sqlite3": "blessing",
    "zlib": "Zlib",
}
# The root of scripts/cross has only the other one; either reads both machines.
READELF = shutil.which("readelf") or "aarch64-linux-gnu-readelf"
STRENGTH = ("headers", "static", "shared")  # what is said of a library that is in several programs
NOT_COMPILED_IN = {"glibc", "linux", "gcc-14"}  # as headers


def run(*command):
    return subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True, text=True).stdout


def needed(program):
    return re.findall(r"\(NEEDED\).*\[(.+)\]", run(READELF, "-dW", program))


def library_path(soname, multiarch):
    path = Path(f"/usr/lib/{multiarch}/{soname}")
    if not path.exists():
        raise SystemExit(f"package: {path} is not there")
    return path


def closure(program, multiarch):
    """Sonames of all shared libraries that a program loads."""
    seen, todo = set(), needed(program)
    while todo:
        soname = todo.pop()
        if soname not in seen:
            seen.add(soname)
            todo += needed(library_path(soname, multiarch))
    return seen


@cache
def package_of(path):
    """Package of a file, with its architecture where it has one; dpkg knows some files by their path from before /usr was merged."""
    real = Path(path).resolve()
    for candidate in (real, Path("/" + str(real).removeprefix("/usr/"))):
        found = subprocess.run(["dpkg-query", "-S", candidate], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        lines = [line for line in found.stdout.splitlines() if not line.startswith("diversion ")]
        if lines:
            return lines[0].rpartition(": ")[0].split(",")[0]
    raise SystemExit(f"package: {path} belongs to no Debian package")


def plain(package):
    return package.split(":")[0]


def copyright_of(package):
    return Path(f"/usr/share/doc/{plain(package)}/copyright")


@cache
def described(package):
    """Source package, version, architecture."""
    return tuple(run("dpkg-query", "-W", "-f", "${source:Package}\t${Version}\t${Architecture}", package).split("\t"))


@cache
def compile_dependencies(build):
    """Source file -> headers of Debian packages that it includes."""
    found, source = {}, None
    for line in run("ninja", "-C", build, "-t", "deps").splitlines():
        if line and not line.startswith(" "):
            source = None
        elif line.strip():
            path = line.strip()
            if source is None:
                source = str((Path(build) / path).resolve())
                found.setdefault(source, set())
            elif path.startswith("/usr/include/"):
                found[source].add("/".join(path.split("/")[:4]))  # one file or folder of /usr/include
    return found


def header_packages(build, target):
    paths = set()
    for source in run("ninja", "-C", build, "-t", "inputs", target).split():
        paths |= compile_dependencies(build).get(str((Path(build) / source).resolve()), set())
    packages = set()
    for path in sorted(paths):
        if Path(path).is_dir():
            path = next(p for p in sorted(Path(path).rglob("*")) if p.is_file())
        package = package_of(path)
        if described(package)[0] not in NOT_COMPILED_IN:
            packages.add(package)
    return packages


def static_packages(linker_map):
    archives = set(re.findall(r" (/\S+\.a)\(", linker_map.read_text(errors="replace")))
    return {package_of(a) for a in sorted(archives)}


def components_of(program, build, target, multiarch):
    """(package, how) of one program: "shared", "static", "headers"; a source package is named once."""
    result = {package_of(library_path(s, multiarch)): "shared" for s in sorted(closure(program, multiarch))}
    linker_map = Path(f"{program}.map")
    if linker_map.exists():
        result |= {p: "static" for p in static_packages(linker_map)}
    sources = {described(p)[0] for p in result}
    result |= {p: "headers" for p in header_packages(build, target) if described(p)[0] not in sources}
    return result


def document(name, version, epoch, components):
    listed = []
    for package in sorted(components):
        source, package_version, architecture = described(package)
        if source not in LICENCES:
            raise SystemExit(f"package: the licence of {source} is not known (packaging/sbom.py)")
        licence = LICENCES[source]
        key = "expression" if " " in licence else "license"
        listed.append({
            "type": "library",
            "bom-ref": package,
            "name": plain(package),
            "version": package_version,
            "licenses": [{key: licence if key == "expression" else {"id": licence}}],
            "purl": f"pkg:deb/debian/{plain(package)}@{package_version.replace(':', '%3A').replace('+', '%2B')}?arch={architecture}&distro=trixie",
            "properties": [{"name": "sallyport:linked", "value": components[package]}, {"name": "sallyport:source", "value": source}],
        })
    return json.dumps({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'sallyport:{name}:{version}:{epoch}')}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "bom-ref": name, "name": name, "version": version, "licenses": [{"license": {"id": "Apache-2.0"}}]},
        },
        "components": listed,
        "dependencies": [{"ref": name, "dependsOn": sorted(components)}],
    }, indent=1) + "\n"
