# SPDX-License-Identifier: Apache-2.0
"""The Debian packages, from the release build."""
import gzip
import os
import re
import shutil
import subprocess
from email.utils import formatdate
from pathlib import Path

import sbom
import staging
from staging import DAEMONS, ROOT, put, write

BUILD = ROOT / "build/release"
DEB = ROOT / "packaging/deb"
SYSTEMD = ROOT / "packaging/systemd"
LIBRARY = "libsally.so.0"


def changelog(version, when):
    """The top of CHANGELOG.md in Debian's form."""
    text = (ROOT / "CHANGELOG.md").read_text()
    section = text.split("\n## ")[1]
    items = re.split(r"\n- ", section)[1:]
    lines = [f"sallyport ({version}) trixie; urgency=medium", ""]
    for item in items:
        words = re.sub(r"\s+", " ", item.split("\n###")[0]).strip()
        lines.append("  * " + "\n    ".join(re.findall(r"\S.{0,72}\S(?=\s|$)|\S+", words)))
    lines += ["", f" -- Sallyport maintainers <maintainers@sallyport.example>  {formatdate(when)}", ""]
    return "\n".join(lines)


def stage_program(root, program):
    staging.strip(put(BUILD / "bin" / program, root / "usr/bin" / program, 0o755))
    return [root / "usr/bin" / program]


def stage_daemon(root, control, name):
    put(SYSTEMD / f"sally-{name}.service", root / f"usr/lib/systemd/system/sally-{name}.service")
    put(SYSTEMD / f"sysusers-{name}.conf", root / f"usr/lib/sysusers.d/sallyport-{name}.conf")
    put(SYSTEMD / "tmpfiles.conf", root / f"usr/lib/tmpfiles.d/sallyport-{name}.conf")
    for script in ("postinst", "prerm", "postrm"):
        write((DEB / script).read_text().replace("@UNIT@", name), control / script, 0o755)


def stage_library(root, control, version, multiarch):
    real = f"libsally.so.{version}"
    staging.strip(put(BUILD / "lib" / real, root / f"usr/lib/{multiarch}/{real}"), shared=True)
    (root / f"usr/lib/{multiarch}/{LIBRARY}").symlink_to(real)
    write(f"libsally 0 libsally0 (>= {version})\n", control / "shlibs")
    write("activate-noawait ldconfig\n", control / "triggers")
    return [root / f"usr/lib/{multiarch}/{real}"]


def stage_development(root, multiarch):
    for header in ("sally.h", "sally.hpp"):
        put(ROOT / "include/sally" / header, root / "usr/include/sally" / header)
    put(BUILD / "lib/sally.pc", root / f"usr/lib/{multiarch}/pkgconfig/sally.pc")
    (root / f"usr/lib/{multiarch}/libsally.so").symlink_to(LIBRARY)
    for example in (ROOT / "examples").iterdir():
        if example.suffix in (".c", ".cc", ".md"):
            put(example, root / "usr/share/doc/libsally-dev/examples" / example.name)


def stage_docs(root, package, version, when, components):
    folder = root / "usr/share/doc" / package
    put(DEB / "copyright", folder / "copyright")
    (folder / "changelog.gz").write_bytes(gzip.compress(changelog(version, when).encode(), 9, mtime=0))
    (folder / "changelog.gz").chmod(0o644)
    write(sbom.document(package, version, when, components), folder / "sbom.cdx.json")
    for compiled_in in (p for p, how in components.items() if how == "headers"):
        put(sbom.copyright_of(compiled_in), folder / f"copyright.{sbom.plain(compiled_in)}")
    if package == "sallyport":
        for name, path in staging.docs().items():
            put(path, folder / name)
    elif package.removeprefix("sallyport-") in DAEMONS:
        put(ROOT / "docs/operations.md", folder / "operations.md")


def control_file(work, package, stage, binaries, version, when):
    """Dependencies by dpkg-shlibdeps, the rest by dpkg-gencontrol from packaging/deb/control."""
    put(DEB / "control", work / "debian/control")
    write(changelog(version, when), work / "debian/changelog")
    substvars = work / f"debian/{package}.substvars"
    write("", substvars)
    if binaries:
        done = subprocess.run(["dpkg-shlibdeps", f"-T{substvars}", *[f"-e{b}" for b in binaries]], cwd=work, stderr=subprocess.PIPE, text=True, check=False)
        # It says so in every root whose /usr is merged.
        told = [line for line in done.stderr.splitlines() if "diversion" not in line]
        if told or done.returncode:
            raise SystemExit("package: dpkg-shlibdeps: " + "\n".join(told))
    subprocess.run(["dpkg-gencontrol", f"-p{package}", f"-P{stage}", f"-T{substvars}"], cwd=work, check=True, stdout=subprocess.DEVNULL)


def build(package, version, when, work, out):
    stage = work / package
    control = stage / "DEBIAN"
    multiarch = subprocess.run(["dpkg-architecture", "-qDEB_HOST_MULTIARCH"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    binaries, components = [], {}
    name = package.removeprefix("sallyport-")
    if package == "sallyport":
        binaries, target = stage_program(stage, "sally"), "bin/sally"
    elif name in DAEMONS:
        binaries, target = stage_program(stage, f"sally-{name}"), f"bin/sally-{name}"
        stage_daemon(stage, control, name)
    elif package == "libsally0":
        binaries, target = stage_library(stage, control, version, multiarch), f"lib/libsally.so.{version}"
    else:
        stage_development(stage, multiarch)
    if binaries:
        components = sbom.components_of(BUILD / target, BUILD, target, multiarch)
    stage_docs(stage, package, version, when, components)
    control.mkdir(exist_ok=True)
    control_file(work, package, stage, binaries, version, when)
    sums = [f"{subprocess.run(['md5sum', p], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0]}  {p.relative_to(stage)}\n"
            for p in sorted(stage.rglob("*")) if p.is_file() and not p.is_symlink() and control not in p.parents]
    write("".join(sums), control / "md5sums")
    staging.settle(stage, when)
    deb = out / f"{package}_{version}_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--threads-max=1", "--build", stage, deb], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "SOURCE_DATE_EPOCH": str(when)})
    shutil.copyfile(stage / f"usr/share/doc/{package}/sbom.cdx.json", out / f"{package}_{version}_amd64.cdx.json")


def packages():
    return re.findall(r"^Package: (\S+)", (DEB / "control").read_text(), flags=re.M)
