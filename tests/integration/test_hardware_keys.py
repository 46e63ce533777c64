# SPDX-License-Identifier: Apache-2.0
"""Keys that never leave a token or a TPM: enrolled, connected, hosting, renewing, pulled out, missing."""
import base64
import json
import os
import re
import socket
import struct
import subprocess
import threading

import pytest
from hardware import PIN, SOFTHSM, CountingTpm, SoftToken, SoftTpm, memory_of
from harness import BIN, SALLY, Failed, Net, echo_server, pids_of, sally, wait_for


@pytest.fixture(scope="module")
def net():
    net = Net()
    try:
        yield net
    finally:
        net.close()


@pytest.fixture
def token():
    token = SoftToken()
    try:
        yield token
    finally:
        token.close()


@pytest.fixture
def tpm():
    tpm = SoftTpm()
    try:
        yield tpm
    finally:
        tpm.close()


def kept_key(device):
    return json.loads(device.identity.read_text())["id"]["key"]


def ping(port):
    with socket.create_connection(("127.0.0.1", port)) as flow:
        flow.settimeout(10)
        try:
            flow.sendall(b"ping")
            return flow.recv(4)
        except ConnectionResetError:
            return b""


def join(net, name, directory, *args, env=None):
    made = net.sally("device", "add", name)[0]
    return sally("join", made["token"], "--dir", directory, "--no-run", *args, env=env)


def test_a_token_dials_what_a_tpm_hosts_and_back(net, token, tpm):
    with echo_server() as target:
        pump = net.device("pump", ["sensors"], key=token.name("pump"), env=token.env)
        server = net.device("server", ["sensors"], key=tpm.key)
        assert kept_key(pump).startswith("pkcs11:token=dev;object=pump?module-path=") and PIN not in kept_key(pump)
        assert kept_key(server) == f"tpm:{server.dir}/key.tpm?device={tpm.socket}"
        assert (server.dir / "key.tpm").stat().st_mode & 0o777 == 0o600
        net.expose(target, "by-tpm", server, "#sensors")
        net.expose(target, "by-token", pump, "#sensors")
        assert ping(pump.forward("by-tpm")) == b"ping"
        assert ping(server.forward("by-token")) == b"ping"


@pytest.mark.parametrize("kind", ["token", "tpm"])
def test_pulled_out_while_it_runs(net, token, tpm, kind):
    key, pull_out, plug_in = {"token": (token.name("pulled"), token.pull_out, token.plug_in), "tpm": (tpm.key, tpm.stop, tpm.start)}[kind]
    with echo_server() as target:
        server = net.device(f"server-{kind}", [f"servers-{kind}"])
        net.expose(target, f"echo-{kind}", server, f"#sensors-{kind}")
        # On a busy machine a chip looks slow; a key in memory would sign for it.
        pump = net.device(f"pump-{kind}", [f"sensors-{kind}"], key=key, env={**token.env, "SALLY_AGENT_OPTIONS": "--session-key never"})
        port = pump.forward(f"echo-{kind}")
        assert ping(port) == b"ping"
        with socket.create_connection(("127.0.0.1", port)) as flow:
            flow.sendall(b"ping")
            assert flow.recv(4) == b"ping"
            pull_out()
            # What is up needs no signature: it goes on. What is new is refused, with the reason.
            flow.sendall(b"ping")
            assert flow.recv(4) == b"ping"
            assert ping(port) == b""
            assert pump.status()["online"]
            assert "crypto.token_missing" in pump.log()
            plug_in()
            assert wait_for(lambda: ping(port), what="what is back signs") == b"ping"
            flow.sendall(b"ping")
            assert flow.recv(4) == b"ping"
        assert pump.log().count("sdk.online") == 1


@pytest.mark.parametrize("kind", ["token", "tpm"])
def test_missing_at_the_start(net, token, tpm, kind):
    hardware = {"token": token, "tpm": tpm}[kind]
    device = net.device(f"late-{kind}", run=False, key=token.name("late") if kind == "token" else tpm.key, env=token.env)
    (token.pull_out if kind == "token" else tpm.stop)()
    run = subprocess.run([SALLY.replace("/sally", "/sally-agent"), "--dir", str(device.dir)], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 2 and "crypto.token_missing" in run.stderr, run.stderr
    (token.plug_in if kind == "token" else tpm.start)()
    device.start()
    assert device.status()["online"] and hardware


REFUSED = {
    "no such token": (lambda t: t.name("x").replace("token=dev", "token=other"), "crypto.token_missing", 4),
    "no such library": (lambda t: "pkcs11:token=dev;object=x?module-path=/nowhere.so", "crypto.module_missing", 4),
    "not a library": (lambda t: "pkcs11:token=dev;object=x?module-path=/etc/passwd", "crypto.module_missing", 4),
    "no TPM": (lambda t: "tpm:?device=/dev/nowhere", "crypto.token_missing", 4),
    "not a TPM": (lambda t: "tpm:?device=/dev/null", "crypto.token_missing", 4),
    "no PIN": (lambda t: re.sub("&pin-source=.*", "", t.name("x")), "crypto.pin_needed", 3),
    "a PIN in the name": (lambda t: "pkcs11:token=dev;object=x?pin-value=5678", "crypto.bad_key_name", 2),
    "another kind": (lambda t: "keychain:x", "crypto.bad_key_name", 2),
    "a TPM key that is not there": (lambda t: "tpm:handle:0x81008001?device=/dev/nowhere", "crypto.token_missing", 4),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_missing_is_named_and_the_token_is_not_used(net, token, tmp_path, case):
    name, code, exit_code = REFUSED[case]
    made = net.sally("device", "add", "d-" + re.sub("[^a-z]", "-", case.lower()))[0]
    with pytest.raises(Failed) as failed:
        sally("join", made["token"], "--dir", tmp_path / "d", "--no-run", "--key", name(token), env=token.env)
    assert failed.value.error["code"] == code, failed.value.error
    assert failed.value.exit == exit_code
    assert PIN not in str(failed.value.error)
    assert not (tmp_path / "d").exists()
    # No other key in its place, and the enrolment token is still good.
    sally("join", made["token"], "--dir", tmp_path / "d", "--no-run")


def test_a_wrong_pin_is_shown_once(net, token, tmp_path):
    made = net.sally("device", "add", "pin")[0]

    def try_it():
        sally("join", made["token"], "--dir", tmp_path / "d", "--no-run", "--key", token.name("x"), env=token.env)

    token.set_pin("9999")
    for _ in range(4):
        with pytest.raises(Failed) as failed:
            try_it()
        assert failed.value.error["code"] == "crypto.pin_refused" and "9999" not in str(failed.value.error)
    assert token.wrong_tries() == ["count low"]
    token.set_pin(PIN)
    with pytest.raises(Failed):
        try_it()
    token.make_key("by-hand")  # logs in
    try_it()


@pytest.mark.parametrize("how", ["extractable", "imported"])
def test_a_key_that_could_leave_or_is_elsewhere_is_refused(net, token, tmp_path, how):
    if how == "extractable":
        token.make_key(how, "--extractable")
    else:
        pem = subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], capture_output=True, check=True).stdout
        (tmp_path / "key.pem").write_bytes(pem)
        token.run("softhsm2-util", "--import", tmp_path / "key.pem", "--token", token.label, "--pin", PIN, "--label", how, "--id", "0b")
    with pytest.raises(Failed) as failed:
        join(net, f"loose-{how}", tmp_path / "d", "--key", token.name(how), env=token.env)
    assert failed.value.error["code"] == "crypto.key_may_leave"


class Capture:
    """What goes to and from TCP ports on loopback, into a file."""

    def __init__(self, path, ports):
        self.path, self.ports, self.ended = path, ports, threading.Event()
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind(("lo", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self.socket.settimeout(0.1)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        with open(self.path, "wb") as out:
            while not self.ended.is_set():
                try:
                    frame = self.socket.recv(1 << 17)
                except TimeoutError:
                    continue
                tcp = 14 + 4 * (frame[14] & 15)  # after Ethernet and IPv4
                if frame[12:14] == b"\x08\x00" and self.ports & set(struct.unpack_from("!HH", frame, tcp)):
                    out.write(frame[tcp:])

    def close(self):
        self.ended.set()
        self.thread.join()
        self.socket.close()


def disk_of(device, out):
    """The device's folder as bytes, and what its base64 holds."""
    with open(out, "wb") as f:
        for path in sorted(device.dir.rglob("*")):
            if not path.is_file():
                continue
            data = path.read_bytes()
            f.write(data + b"\0" * (-len(data) % 4))
            for block in re.findall(rb"-----BEGIN [A-Z0-9 ]+-----(.*?)-----END", data.replace(b"\\u000a", b"").replace(b"\\n", b""), re.S):
                raw = base64.b64decode(block)
                f.write(raw + b"\0" * (-len(raw) % 4))


@pytest.mark.skipif(os.environ.get("SALLY_SANITIZED") == "1", reason="the memory of a sanitized program is terabytes")
def test_the_private_key_is_nowhere(net, token, tpm, tmp_path):
    with echo_server() as target:
        capture = Capture(tmp_path / "lo.cap", {net.port, net.router_port})
        try:
            kinds = {"file": ("file", {}), "token": (token.name("scan"), token.env), "tpm": (tpm.key, {})}
            devices = {kind: net.device(f"scan-{kind}", ["scan"], key=key, env=env) for kind, (key, env) in kinds.items()}
            net.expose(target, "scan", devices["file"], "#scan")
            for device in devices.values():
                assert ping(device.forward("scan")) == b"ping"
            found = {}
            for kind, device in devices.items():
                cert = tmp_path / f"{kind}.pem"
                cert.write_text(json.loads(device.identity.read_text())["id"]["cert"])
                agent = pids_of(device.dir)["sally-agent"]
                disk_of(device, tmp_path / "disk")
                memory_of(agent[0], tmp_path / "memory")
                for place in ("disk", "memory", "lo.cap"):
                    run = subprocess.run([BIN / "key-scan", cert, tmp_path / place], capture_output=True, text=True, timeout=300, check=False)
                    assert run.returncode in (0, 1) and "windows" in run.stdout, run
                    found[kind, place] = run.returncode == 1
        finally:
            capture.close()
    # The scan sees what is there to be seen: the key that is a file.
    assert [at for at, yes in found.items() if yes] == [("file", "disk"), ("file", "memory")], found


def sessions(device):
    return re.findall(r"identity\.session .*?serial=(\w+)", device.log())


def test_session_certificates_spare_the_tpm(net, tpm):
    always = {"SALLY_AGENT_OPTIONS": "--session-key always"}
    with echo_server() as target:
        server = net.device("server-s", ["servers-s"])
        net.expose(target, "echo-s", server, "#sensors-s")
        with CountingTpm(tpm) as counted:
            pump = net.device("pump-s", ["sensors-s"], key=counted.key, env=always)
            port = pump.forward("echo-s")
            wait_for(lambda: sessions(pump), what="a session certificate")
            assert ping(port) == b"ping"
            before = counted.signatures
            for _ in range(20):
                assert ping(port) == b"ping"
            assert counted.signatures - before <= 2, counted.signatures - before
            assert before >= 2  # the lane and the request: the count counts
            rows = [a for a in net.audit() if a["action"] == "certificate.session" and a["subject"] == pump.id]
            assert rows, net.audit()
            # Forbidden from now on: the next lane and dials are of the TPM.
            net.sally("device", "tag", "pump-s", "sensors-s", "device-key-only")
            wait_for(lambda: "identity.session_over" in pump.log(), what="the session to end")
            wait_for(lambda: ping(port) == b"ping", what="the device's own key")
            before = counted.signatures
            for _ in range(3):
                assert ping(port) == b"ping"
            assert counted.signatures - before >= 6, counted.signatures - before
            net.sally("device", "tag", "pump-s", "sensors-s")
            wait_for(lambda: len(sessions(pump)) > len(rows), what="a session certificate again")
            # The parent's end is the session's.
            assert ping(port) == b"ping"
            parent = next(c["serial"] for c in net.sally("device", "show", "pump-s")[0]["certificates"] if not c["revoked_at"])
            net.sally("revoke", "cert", parent, "--yes")
            wait_for(lambda: not pump.status().get("online"), what="the revoked device is off")
            assert ping(port) == b""


def test_keys_in_hardware_renew_themselves():
    net, token, tpm = Net(controller_options="--certificate-life 60"), SoftToken(), SoftTpm()
    try:
        with echo_server() as target:
            server = net.device("server", key=tpm.key)
            pump = net.device("pump", ["sensors"], key=token.name("pump"), env=token.env)
            net.expose(target, "plant", server, "#sensors")
            port = pump.forward("plant")
            before = {d: (kept_key(d), d.identity.read_text()) for d in (server, pump)}
            wait_for(lambda: all("identity.renewed" in d.log() for d in (server, pump)), seconds=120, what="a renewal at both ends")
            for d in (server, pump):
                assert kept_key(d) == before[d][0] and d.identity.read_text() != before[d][1]
                assert d.log().count("sdk.online") == 1
            assert ping(port) == b"ping"
    finally:
        net.close()
        token.close()
        tpm.close()


def test_the_authorities_in_a_token():
    token = SoftToken("ca")
    os.environ.update(token.env)  # of the network's programs
    ca = token.name("x").replace(";object=x", "")
    net = None
    try:
        net = Net(options=("--ca-key", ca, "--router-key", token.name("router")))
        with echo_server() as target:
            server, pump = net.device("server"), net.device("pump", ["sensors"])
            net.expose(target, "plant", server, "#sensors")
            assert ping(pump.forward("plant")) == b"ping"
        keys = {p.name for p in (net.context / "controller/keys").iterdir()}
        assert "rest.key" in keys and not [k for k in keys if k.startswith(("root", "devices", "infrastructure"))]
        assert json.loads((net.context / "router/identity.json").read_text())["id"]["key"].startswith("pkcs11:token=ca;object=router?")
        objects = token.run("pkcs11-tool", "--module", SOFTHSM, "--token-label", "ca", "--login", "--pin", PIN, "--list-objects", "--type", "privkey")
        for name in ("root", "devices-1", "infrastructure-1"):
            assert f".sally-{name}" in objects
        # Without the token nothing starts, and no other authority is made.
        sally("down", "--dir", net.context)
        token.pull_out()
        run = subprocess.run([BIN / "sally-controller", "--dir", net.context / "controller"], capture_output=True, text=True, timeout=30, check=False)
        assert run.returncode == 1 and "crypto.token_missing" in run.stderr
        run = subprocess.run([BIN / "sally-router", "--dir", net.context / "router", "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=30, check=False)
        assert run.returncode == 2 and "crypto.token_missing" in run.stderr
        token.plug_in()
        sally("up", "--dir", net.context, "--detach")
        wait_for(lambda: net.device("late").status()["online"], what="a certificate by the token again")
    finally:
        if net:
            net.close()
        token.close()
        for name in token.env:
            del os.environ[name]
