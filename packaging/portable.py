# SPDX-License-Identifier: Apache-2.0
"""The self-contained directory and its archive, from the portable build."""
import lzma
import re
import shutil
import subprocess
from dataclasses import dataclass

import sbom
import staging
from staging import DAEMONS, PROGRAMS, ROOT, put, write

PREFIX = "/opt/sallyport"
# What every distribution has, in at least this version (Debian 12, RHEL 10, Ubuntu 22.10 ...).
GLIBC = (2, 36)
C_LIBRARY = re.compile(r"^(libc|libm|ld-linux-[a-z0-9-]+)\.so\.")


@dataclass(frozen=True)
class Target:
    """A machine that directories are made for."""
    machine: str
    preset: str
    multiarch: str
    programs: tuple
    strip: str


X86_64 = Target("x86_64", "portable", "x86_64-linux-gnu", PROGRAMS, "strip")
# Devices, not servers.
AARCH64 = Target("aarch64", "arm64", "aarch64-linux-gnu", ("sally", "sally-agent"), "aarch64-linux-gnu-strip")


def check_glibc(binary):
    versions = {tuple(int(n) for n in v.split(".")) for v in re.findall(r"\bGLIBC_([0-9.]+)\b", sbom.run(sbom.READELF, "-W", "--version-info", binary))}
    if versions and max(versions) > GLIBC:
        raise SystemExit(f"package: {binary} wants glibc {max(versions)}, at most {GLIBC}")


def build(target, version, when, work, out):
    built = ROOT / "build" / target.preset
    name = f"sallyport-{version}-linux-{target.machine}"
    top = work / name
    components, sonames = {}, set()
    for program in target.programs:
        staging.strip(put(built / "bin" / program, top / "bin" / program, 0o755), tool=target.strip)
        mine = sbom.components_of(built / "bin" / program, built, f"bin/{program}", target.multiarch)
        for package, how in mine.items():
            components[package] = max(components.get(package, how), how, key=sbom.STRENGTH.index)
        sonames |= sbom.closure(built / "bin" / program, target.multiarch)
    for soname in sorted(s for s in sonames if not C_LIBRARY.match(s)):
        put(sbom.library_path(soname, target.multiarch), top / "lib" / soname)
    for binary in [*(top / "bin").iterdir(), *(top / "lib").iterdir()]:
        check_glibc(binary)
    for daemon in (d for d in DAEMONS if f"sally-{d}" in target.programs):
        unit = (ROOT / f"packaging/systemd/sally-{daemon}.service").read_text()
        unit = unit.replace("/usr/bin/", f"{PREFIX}/bin/").replace(f"/usr/share/doc/sallyport-{daemon}/", f"{PREFIX}/share/doc/")
        write(unit, top / f"share/systemd/system/sally-{daemon}.service")
        sysusers = (ROOT / f"packaging/systemd/sysusers-{daemon}.conf").read_text()
        write(sysusers.replace("\nu! ", "\nu "), top / f"share/systemd/sysusers.d/sallyport-{daemon}.conf")
    put(ROOT / "packaging/systemd/tmpfiles.conf", top / "share/systemd/tmpfiles.d/sallyport.conf")
    for file, path in staging.docs().items():
        put(path, top / "share/doc" / file)
    put(ROOT / "CHANGELOG.md", top / "share/doc/CHANGELOG.md")
    put(ROOT / "LICENSE", top / "share/licences/LICENSE")
    for package in sorted(components):
        put(sbom.copyright_of(package), top / f"share/licences/{sbom.plain(package)}")
    bom = sbom.document(name, version, when, components)
    write(bom, top / "share/sbom.cdx.json")
    write(bom, out / f"{name}.cdx.json")
    staging.settle(top, when)
    archive = out / f"{name}.tar.xz"
    tar = subprocess.Popen(["tar", "--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner", f"--mtime=@{when}", "-C", work, "-cf", "-", name],
                           stdout=subprocess.PIPE)
    with tar.stdout as stream, lzma.open(archive, "wb", preset=6) as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    if tar.wait() != 0:
        raise SystemExit("package: tar failed")
    return top
