# SPDX-License-Identifier: Apache-2.0
"""One-time tokens against the real controller, by the real command. (Expiry needs a clock that moves: src/pki, src/identity.)"""
import base64
import json
import os
import re
import signal
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest
from harness import SALLY, Failed, Net, pids_of, sally, wait_for


def join(token, folder, *more):
    return sally("join", token, "--dir", folder, "--no-run", *more)


def refused(token, folder):
    with pytest.raises(Failed) as e:
        join(token, folder)
    assert not (folder / "identity.json").exists()
    return e.value


def token_of(net, name):
    return net.sally("device", "add", name)[0]["token"]


def test_used_altered_and_meaningless_tokens(net, tmp_path):
    token = token_of(net, "one")
    join(token, tmp_path / "a")
    again = refused(token, tmp_path / "b")
    assert again.exit == 3 and again.error["code"] == "identity.token_used", again
    fresh = token_of(net, "two")
    head, body, signature = fresh.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "somebody-else"}).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    hs = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    flipped = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    for bad in (f"{head}.{forged}.{signature}", f"{head}.{body}.{flipped}", f"{none}.{body}.", f"{none}.{body}.{signature}", f"{hs}.{body}.{signature}", f"{head}.{body}", "nonsense", "", "a.b.c", "e" * 10_000):
        failure = refused(bad, tmp_path / "c")
        assert (failure.exit, failure.error["code"]) in ((2, "identity.bad_token"), (7, "identity.token_altered")), failure
    # None of that used the token up.
    join(fresh, tmp_path / "d")


def test_tokens_of_another_network_and_kind(net, tmp_path):
    other = Net()
    try:
        foreign = token_of(other, "pump")
        head, body, signature = foreign.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        claims["iss"] = f"https://127.0.0.1:{net.port}"
        moved = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        assert refused(f"{head}.{moved}.{signature}", tmp_path / "a").error["code"] == "identity.token_altered"
        # The genuine foreign token, handed to our controller by hand: refused, and said which.
        context = ssl._create_unverified_context()
        request = urllib.request.Request(f"https://127.0.0.1:{net.port}/enroll?method=ott&token={foreign}", data=b"x", headers={"Content-Type": "text/plain"}, method="POST")
        with pytest.raises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(request, context=context)
        assert e.value.code == 400 and json.loads(e.value.read())["error"]["code"] == "INVALID_ENROLLMENT_TOKEN"
    finally:
        other.close()
    # At the wrong door a token says so and stays good for the right one.
    admin, device = net.sally("admin", "add", "alice")[0]["token"], token_of(net, "wrong-door")
    assert refused(admin, tmp_path / "b").exit == 2
    with pytest.raises(Failed) as e:
        sally("login", device, "--dir", tmp_path / "c")
    assert e.value.exit == 2
    assert subprocess.run([SALLY, "login", admin, "--dir", tmp_path / "c"], capture_output=True, check=False).returncode == 0
    join(device, tmp_path / "e")


def test_a_request_decides_nothing_but_the_key(net, tmp_path):
    """A CSR that asks to be a CA, a controller and localhost: the leaf is a device's and nothing else."""
    token = token_of(net, "greedy")
    key, csr, conf = tmp_path / "k.pem", tmp_path / "r.pem", tmp_path / "c.cnf"
    conf.write_text("[req]\ndistinguished_name=d\nreq_extensions=e\nprompt=no\n[d]\nCN=controller\n[e]\nbasicConstraints=CA:TRUE\nsubjectAltName=DNS:localhost,URI:spiffe://x/controller/y\n")
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", csr, "-config", conf], check=True, capture_output=True)
    jti = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["jti"]
    context = ssl._create_unverified_context()
    request = urllib.request.Request(f"https://127.0.0.1:{net.port}/enroll?method=ott&token={jti}", data=csr.read_bytes(), headers={"Content-Type": "application/x-pem-file"}, method="POST")
    data = json.loads(urllib.request.urlopen(request, context=context).read())["data"]
    leaf = tmp_path / "leaf.pem"
    leaf.write_text(data["cert"])
    text = subprocess.run(["openssl", "x509", "-in", leaf, "-noout", "-text"], capture_output=True, text=True, check=True).stdout
    assert "CA:FALSE" in text and "localhost" not in text and "controller" not in text
    assert re.findall(r"URI:(\S+)", text) == [f"spiffe://{data['sally']['network']}/device/{data['sally']['id']}"]
    for use in ("TLS Web Client Authentication", "TLS Web Server Authentication", "Digital Signature"):
        assert use in text
    bundle = tmp_path / "ca.pem"
    bundle.write_text(data["ca"])
    subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", bundle, leaf], check=True, capture_output=True)


def test_a_weak_key_is_refused_and_the_token_lives(net, tmp_path):
    token = token_of(net, "weak")
    subprocess.run(["openssl", "req", "-new", "-newkey", "rsa:1024", "-nodes", "-keyout", tmp_path / "k", "-out", tmp_path / "r", "-subj", "/CN=x"], check=True, capture_output=True)
    jti = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["jti"]
    request = urllib.request.Request(f"https://127.0.0.1:{net.port}/enroll?method=ott&token={jti}", data=(tmp_path / "r").read_bytes(), headers={"Content-Type": "text/plain"}, method="POST")
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(request, context=ssl._create_unverified_context())
    assert e.value.code == 400 and json.loads(e.value.read())["error"]["code"] == "COULD_NOT_PROCESS_CSR"
    join(token, tmp_path / "d")


def test_files_and_options(net, tmp_path):
    token = token_of(net, "files")
    made = join(token, tmp_path / "d")[0]
    assert made["name"] == "files" and made["certificate_expires"]
    assert (tmp_path / "d/identity.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Failed) as e:
        join(token_of(net, "more"), tmp_path / "d")
    assert e.value.exit == 5


def test_join_starts_the_agent_and_down_ends_it(net, tmp_path):
    folder = tmp_path / "dev"
    sally("join", token_of(net, "running"), "--dir", folder)
    try:
        assert sally("status", "--dir", folder)[0]["agent"]["online"] is True
        agent = pids_of(folder)["sally-agent"][0]
        os.kill(agent, signal.SIGKILL)
        wait_for(lambda: sally_online(folder), what="the supervisor brings it back")
    finally:
        sally("down", "--dir", folder)
    wait_for(lambda: not pids_of(folder), what="nothing left")


def sally_online(folder):
    try:
        return sally("status", "--dir", folder)[0]["agent"].get("online")
    except Failed:
        return False


def test_no_secret_in_logs_or_command_lines(net, tmp_path):
    token = token_of(net, "quiet")
    folder = tmp_path / "dev"
    sally("join", token, "--dir", folder)
    try:
        key = json.loads((folder / "identity.json").read_text())["id"]["key"]
        secrets = [token, json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["jti"], key.split("\n")[1][:40]]
        texts = [p.read_text(errors="replace") for root in (net.context, folder) for p in root.rglob("*.log")]
        for pids in [*pids_of(net.context).values(), *pids_of(folder).values()]:
            texts += [open(f"/proc/{pid}/cmdline", errors="replace").read() for pid in pids]
        assert len(texts) > 4
        for secret in secrets:
            assert not any(secret in t for t in texts)
        assert secrets[1].encode() not in b"".join(p.read_bytes() for p in (net.context / "controller").glob("controller.db*"))
    finally:
        sally("down", "--dir", folder)


def test_formats(net):
    token_of(net, "listed")
    for fmt in ("table", "wide", "json", "jsonl", "csv", "name"):
        out = subprocess.run([SALLY, "--context", str(net.context), "-o", fmt, "device", "list"], capture_output=True, text=True, check=True).stdout
        assert "listed" in out, fmt


def test_a_token_as_qr_code(net, tmp_path):
    run = subprocess.run([SALLY, "--context", str(net.context), "device", "add", "camera", "--qr"], capture_output=True, text=True, check=True)
    rows = [line for line in run.stderr.splitlines() if "\x1b[30;107m" in line]
    assert len(rows) > 20 and len({len(r) for r in rows}) == 1, "a square of rows of one width"
    join(run.stdout.strip(), tmp_path / "camera")
