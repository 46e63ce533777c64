# SPDX-License-Identifier: Apache-2.0
"""The packages in build/package, as their users meet them."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build/package"
TOUR = ROOT / "tests/package/tour.py"
DAEMONS = ("controller", "router", "agent")
# systemd-analyze security: exposure, 0 (none) to 100. Measured 11 to 13.
MAX_EXPOSURE = 15
# In every unit; the judge above weighs them, but says nothing of one that is only weakened.
UNIT_LINES = """
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
MemoryDenyWriteExecute=yes
Restart=on-failure
LimitNOFILE=65536
StateDirectoryMode=0700
UMask=0077
"""

# A layer over the root that goes away: what is installed there is nowhere else.
LAYER = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/l/upper /run/l/work /run/l/top
mount -t overlay overlay -o lowerdir=/,upperdir=/run/l/upper,workdir=/run/l/work /run/l/top
for d in proc dev; do mount --rbind /$d /run/l/top/$d; done
mkdir -p /run/l/top/src
mount --rbind "$PWD" /run/l/top/src
exec chroot /run/l/top bash -euc "$1"
"""


def run(*command, **kwargs):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=ROOT, **kwargs)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


def layer(script):
    if os.geteuid() != 0:
        pytest.skip("a layer over the root needs root")
    return run("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "bash", "-c", LAYER, "layer", script)


@pytest.fixture(scope="module")
def directory():
    return next(p for p in OUT.glob("sallyport-*-linux-x86_64") if p.is_dir())


def test_installed_with_dpkg_it_makes_a_network_and_users_but_starts_nothing():
    out = layer("""
        dpkg -i /src/build/package/*.deb
        for d in controller router agent; do getent passwd sally-$d; done
        stat -c '%a %U' /var/lib/sallyport
        test ! -e /etc/systemd/system/multi-user.target.wants/sally-agent.service
        python3 /src/tests/package/tour.py /usr/bin
    """)
    assert "711 root" in out
    assert out.count("/usr/sbin/nologin") == 3
    assert out.strip().endswith("tour: ok")


def test_removed_it_leaves_the_state_and_nothing_else():
    out = layer("""
        snapshot() { find / -xdev -path /var/lib/dpkg -prune -o -path /proc -prune -o -path /var/log -prune -o -path /tmp -prune -o -print | sort; }
        snapshot > /tmp/before.$$
        dpkg -i /src/build/package/*.deb >/dev/null
        systemctl enable sally-agent.service
        install -d -m 700 -o sally-agent /var/lib/sallyport/agent
        echo key > /var/lib/sallyport/agent/identity.json
        dpkg --purge libsally-dev libsally0 sallyport sallyport-agent sallyport-router sallyport-controller
        snapshot > /tmp/after.$$
        echo ---
        diff /tmp/before.$$ /tmp/after.$$ || true
        rm /tmp/before.$$ /tmp/after.$$
    """)
    left = {line[2:] for line in out.split("---\n")[1].splitlines() if line[:1] in "<>"}
    # What every change of the list of users, or of libraries, leaves.
    users = {"/etc/.pwd.lock", "/var/cache/ldconfig/aux-cache"} | {f"/etc/{f}-" for f in ("passwd", "group", "shadow", "gshadow")}
    assert left - users == {"/var/lib/sallyport", "/var/lib/sallyport/agent", "/var/lib/sallyport/agent/identity.json"}


def test_systemd_keeps_a_network_running():
    """The real thing: a booted layer, `sally up --service`, killed programs, an upgrade, a removal (booted.sh)."""
    log = "build/boot.log"
    done = subprocess.run(["tests/package/boot.sh", log], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + "".join((ROOT / log).read_text().splitlines(keepends=True)[-40:])


def test_the_development_package_links_with_nothing_but_pkg_config():
    out = layer("""
        dpkg -i /src/build/package/libsally*.deb >/dev/null
        mkdir /run/try && cd /run/try
        cp /usr/share/doc/libsally-dev/examples/* .
        g++ -std=c++23 -Wall -Wextra -Werror -o client echo-client.cc $(pkg-config --cflags --libs sally)
        g++ -std=c++23 -Wall -Wextra -Werror -o server echo-server.cc $(pkg-config --cflags --libs sally)
        gcc -std=c11 -Wall -Wextra -Werror -o client-c echo-client.c $(pkg-config --cflags --libs sally)
        ldd ./client | grep libsally
        ./client /nowhere echo || echo "exit $?"
        ./client-c /nowhere echo || echo "exit $?"
    """)
    assert "libsally.so.0 => /lib/x86_64-linux-gnu/libsally.so.0" in out or "libsally.so.0 => /usr/lib/x86_64-linux-gnu/libsally.so.0" in out
    assert out.count("exit 1") == 2 and "/nowhere" in out


def test_the_library_shows_the_functions_of_the_header_and_no_other():
    shown = run("nm", "-D", "--defined-only", ROOT / "build/release/lib/libsally.so.0")
    names = {line.split()[2].split("@")[0] for line in shown.splitlines() if line.split()[1] in "TDBVW"}
    header = (ROOT / "include/sally/sally.h").read_text()
    assert names == set(re.findall(r"^SALLY_API[^;(]*?\b(sally_\w+)\(", header, flags=re.M))


def test_the_directory_is_a_network(directory):
    assert run(sys.executable, TOUR, directory / "bin").strip().endswith("tour: ok")


@pytest.mark.parametrize("name", DAEMONS)
def test_a_unit_is_well_formed_and_hardened(name):
    out = layer(f"""
        dpkg -i /src/build/package/sallyport-{name}_*.deb >/dev/null
        systemd-analyze verify sally-{name}.service
        systemd-analyze security --offline=yes --threshold={MAX_EXPOSURE} sally-{name}.service | tail -1
    """)
    assert "Unknown" not in out and "not found" not in out, out
    lines = (ROOT / f"packaging/systemd/sally-{name}.service").read_text().splitlines()
    assert [line for line in UNIT_LINES.split("\n") if line and line not in lines] == []
    assert f"User=sally-{name}" in lines
    assert any(line.startswith(f"ConditionPathExists=/var/lib/sallyport/{name}/") for line in lines)


def test_every_artefact_has_a_bill_of_materials_of_what_is_inside(directory):
    bills = {re.sub(r"(_[0-9.]+_amd64)?\.cdx\.json$", "", p.name): json.loads(p.read_text()) for p in OUT.glob("*.cdx.json")}
    assert set(bills) == {p.name.split("_")[0] for p in OUT.glob("*.deb")} | {directory.name}
    for name, bill in bills.items():
        assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
        for c in bill["components"]:
            assert c["purl"].startswith(f"pkg:deb/debian/{c['name']}@") and c["licenses"] and c["version"], (name, c)

    def names(artefact, linked):
        return {c["name"] for c in bills[artefact]["components"] if c["properties"][0]["value"] == linked}

    assert {"libssl-dev", "libuv1-dev", "libsqlite3-dev", "libllhttp-dev", "libboost-json1.83-dev", "libstdc++-14-dev"} <= names(directory.name, "static")
    assert {"zlib1g", "libzstd1", "libqrencode4"} <= names(directory.name, "shared")
    assert {"libssl3t64", "libuv1t64"} <= names("sallyport-agent", "shared")
    assert "libprotozero-dev" in names("sallyport-agent", "headers")
    assert not any("sqlite" in n for n in names("sallyport-router", "shared") | names("sallyport-agent", "shared")), "SQL outside the controller"


def test_checksums_and_times(directory):
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=OUT, check=True)
    for deb in OUT.glob("*.deb"):
        listing = run("dpkg-deb", "--contents", deb).splitlines()
        assert {line.split()[1] for line in listing} == {"root/root"}
        assert len({tuple(line.split()[3:5]) for line in listing}) == 1
    assert directory.is_dir()


def test_the_agent_stays_small(directory):
    """The budget is 6 MB; libcrypto and libssl alone are 5 MB as Debian builds them. This keeps it from growing."""
    assert (directory / "bin/sally-agent").stat().st_size < 8_500_000
