# SPDX-License-Identifier: Apache-2.0
"""The self-contained directory and its archive, from the portable build."""
import re
import subprocess
from pathlib import Path

import sbom
import staging
from staging import DAEMONS, PROGRAMS, ROOT, put, write

BUILD = ROOT / "build/portable"
PREFIX = "/opt/sallyport"
# What every distribution has, in at least this version (Debian 12, RHEL 10, Ubuntu 22.10 ...).
GLIBC = (2, 36)
C_LIBRARY = re.compile(r"^(libc|libm|ld-linux-x86-64)\.so\.")


def check_glibc(binary):
    versions = {tuple(int(n) for n in v.split(".")) for v in re.findall(r"\bGLIBC_([0-9.]+)\b", sbom.run("objdump", "-T", binary))}
    if versions and max(versions) > GLIBC:
        raise SystemExit(f"package: {binary} wants glibc {max(versions)}, at most {GLIBC}")


def build(version, when, work, out):
    name = f"sallyport-{version}-linux-x86_64"
    top = work / name
    components, sonames = {}, set()
    for program in PROGRAMS:
        staging.strip(put(BUILD / "bin" / program, top / "bin" / program, 0o755))
        mine = sbom.components_of(BUILD / "bin" / program, BUILD, f"bin/{program}")
        for package, how in mine.items():
            components[package] = max(components.get(package, how), how, key=sbom.STRENGTH.index)
        sonames |= sbom.closure(BUILD / "bin" / program)
    for soname in sorted(s for s in sonames if not C_LIBRARY.match(s)):
        put(sbom.library_path(soname), top / "lib" / soname)
    for binary in [*(top / "bin").iterdir(), *(top / "lib").iterdir()]:
        check_glibc(binary)
    for daemon in DAEMONS:
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
        put(Path(f"/usr/share/doc/{package}/copyright"), top / f"share/licences/{package}")
    bom = sbom.document(name, version, when, components)
    write(bom, top / "share/sbom.cdx.json")
    write(bom, out / f"{name}.cdx.json")
    staging.settle(top, when)
    archive = out / f"{name}.tar.xz"
    tar = subprocess.Popen(["tar", "--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner", f"--mtime=@{when}", "-C", work, "-cf", "-", name],
                           stdout=subprocess.PIPE)
    with tar.stdout as stream, archive.open("wb") as file:
        subprocess.run(["xz", "-T1", "-6"], stdin=stream, stdout=file, check=True)
    if tar.wait() != 0:
        raise SystemExit("package: tar failed")
    return top
