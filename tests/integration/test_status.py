# SPDX-License-Identifier: Apache-2.0
"""Revocation lists and OCSP as outsiders see them: with the openssl command and nothing of ours."""
import json
import subprocess

import pytest
from harness import Net, wait_for


def openssl(*args, **kwargs):
    return subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, timeout=30, check=False, **kwargs)


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A network, and the files that an outsider has: root, issuing CA of devices, a device's certificate."""
    folder = tmp_path_factory.mktemp("outside")
    net = Net()
    try:
        device = net.device("pump", run=False)
        identity = json.loads(device.identity.read_text())["id"]
        (folder / "pump.pem").write_text(identity["cert"].removeprefix("pem:"))  # the first one counts
        bundle = [block + "-----END CERTIFICATE-----\n" for block in identity["ca"].removeprefix("pem:").split("-----END CERTIFICATE-----\n") if "BEGIN" in block]
        for name, pem in zip(("root", "devices", "infrastructure"), bundle):
            (folder / f"{name}.pem").write_text(pem)
        net.folder = folder
        yield net
    finally:
        net.close()


def ask(net):
    f = net.folder
    run = openssl("ocsp", "-url", f"https://127.0.0.1:{net.port}/ocsp", "-CAfile", f / "root.pem", "-issuer", f / "devices.pem", "-cert", f / "pump.pem", "-verify_other", f / "devices.pem")
    assert "Response verify OK" in run.stdout + run.stderr, run.stdout + run.stderr
    return run.stdout


def crl(net, name):
    f = net.folder
    out = f / f"{name}.crl"
    subprocess.run(["curl", "--silent", "--fail", "--cacert", f / "root.pem", "-o", out, f"https://127.0.0.1:{net.port}/crl/{name}.crl"], check=True, timeout=30)
    issuer = f / ("root.pem" if name == "root" else f"{name.rsplit('-', 1)[0]}.pem")
    run = openssl("crl", "-inform", "DER", "-in", out, "-CAfile", issuer, "-noout", "-text")
    assert "verify OK" in run.stdout + run.stderr, run.stdout + run.stderr
    return run.stdout


def test_a_certificate_is_good_held_and_revoked(outside):
    serial = outside.sally("device", "show", "pump")[0]["certificates"][0]["serial"].upper()
    assert ": good" in ask(outside)
    for name in ("devices-1", "infrastructure-1", "root"):
        assert "No Revoked Certificates" in crl(outside, name)
    outside.sally("suspend", "pump")
    assert "revoked" in (said := ask(outside)) and "certificateHold" in said
    outside.sally("resume", "pump")
    assert ": good" in ask(outside)
    outside.sally("revoke", "device", "pump", "--reason", "key-compromise", "--yes")
    assert "revoked" in (said := ask(outside)) and "keyCompromise" in said

    # The list follows within the minute.
    text = wait_for(lambda: serial in (t := crl(outside, "devices-1")) and t, seconds=75, what="the serial in the list")
    assert "Key Compromise" in text
    f = outside.folder
    openssl("crl", "-inform", "DER", "-in", f / "devices-1.crl", "-out", f / "devices-1.pem")
    run = openssl("verify", "-crl_check", "-x509_strict", "-CAfile", f / "root.pem", "-untrusted", f / "devices.pem", "-CRLfile", f / "devices-1.pem", f / "pump.pem")
    assert run.returncode != 0 and "certificate revoked" in run.stderr


def test_who_asks_badly_gets_an_answer_and_nothing_else(outside):
    for body in (b"", b"\x30\x03", b"x" * 100_000):
        run = subprocess.run(["curl", "--silent", "--cacert", outside.folder / "root.pem", "--data-binary", "@-", "-H", "Content-Type: application/ocsp-request", f"https://127.0.0.1:{outside.port}/ocsp"],
                             input=body, capture_output=True, timeout=30, check=True)
        assert run.stdout == b"\x30\x03\x0a\x01\x01"  # malformedRequest
