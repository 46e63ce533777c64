# SPDX-License-Identifier: Apache-2.0
"""What others say of all that we issue: OpenSSL's strict rules, GnuTLS, pkilint."""
import json
import os
import re
import signal
import subprocess

import certlint
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hardware import memory_of
from harness import Admin, Net, pids_of, wait_for

BLOCK = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.S)
SESSION = bytes.fromhex("060a2b0601040181fd595302")  # the extension's OID in DER
SANITIZED = os.environ.get("SALLY_SANITIZED") == "1"


def run(*args, **kwargs):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=60, check=False, **kwargs)


def session_in(memory, issuer):
    """A session certificate is nowhere but in the memory of its device; what is left of one there may be spoiled."""
    for at in (m.start() for m in re.finditer(re.escape(SESSION), memory)):
        for begin in (m.start() for m in re.compile(b"\x30\x82").finditer(memory, max(0, at - 1024), at)):
            end = begin + 4 + int.from_bytes(memory[begin + 2:begin + 4], "big")
            try:
                certificate = x509.load_der_x509_certificate(memory[begin:end])
                certificate.verify_directly_issued_by(issuer)
            except (ValueError, InvalidSignature):
                continue
            if end > at:
                return certificate
    return None


class Issued:
    """Every kind of what a network issues, in files: certificates NAME.cer, lists NAME.crl, OCSP answers NAME.ocsp."""

    def __init__(self, net, folder):
        self.net, self.folder = net, folder
        self.pump = net.device("pump", env={"SALLY_AGENT_OPTIONS": "--session-key always"})
        gone, held = net.device("gone", run=False), net.device("held", run=False)
        for name, pem in zip(("root", "devices", "infrastructure"), BLOCK.findall(json.loads(self.pump.identity.read_text())["id"]["ca"])):
            self.keep(name, x509.load_pem_x509_certificate(pem.encode()))
        for row in net.sally("cert", "list", "--all"):
            self.keep(row["profile"], self.certificate(row["serial"]))
        self.keep("device-of-a-year", self.enrolled_by_others())
        if not SANITIZED:
            wait_for(lambda: "identity.session " in self.pump.log(), what="a session certificate")
            self.keep("session", wait_for(self.session, what="it in memory"))
        serials = {d.name: net.sally("device", "show", d.name)[0]["certificates"][0]["serial"] for d in (self.pump, gone, held)}
        net.sally("revoke", "device", "gone", "--reason", "key-compromise", "--yes")
        net.sally("suspend", "held")
        # Lists follow within a minute; of a controller that starts they are there.
        os.kill(net.pid("sally-controller"), signal.SIGKILL)
        wait_for(net.routers_online, seconds=30, what="the controller back")
        for name in ("root", "devices-1", "infrastructure-1"):
            self.fetch(f"crl/{name}.crl", folder / f"{name}.crl")
        for what, ca, serial in (("good", "devices", serials["pump"]), ("revoked", "devices", serials["gone"]), ("held", "devices", serials["held"]), ("unknown", "devices", "4711"),
                                 ("of-infrastructure", "infrastructure", f"{x509.load_der_x509_certificate((folder / 'router.cer').read_bytes()).serial_number:x}")):
            answer = folder / f"{what}.ocsp"
            asked = run("openssl", "ocsp", "-url", f"https://127.0.0.1:{net.port}/ocsp", "-CAfile", self.pem("root"), "-issuer", self.pem(ca), "-serial", f"0x{serial}", "-respout", answer)
            assert answer.exists(), asked
            for responder in ocsp.load_der_ocsp_response(answer.read_bytes()).certificates:
                self.keep(f"responder-{ca}", responder)

    def keep(self, name, certificate):
        (self.folder / f"{name}.cer").write_bytes(certificate.public_bytes(Encoding.DER))
        self.pem(name).write_bytes(certificate.public_bytes(Encoding.PEM))

    def pem(self, name):
        return self.folder / f"{name}.pem"

    def certificate(self, serial):
        return x509.load_pem_x509_certificate(self.net.sally("cert", "show", serial)[0]["pem"].encode())

    def enrolled_by_others(self):
        token = self.net.sally("device", "add", "foreign")[0]["token"]
        request = run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x").stdout
        with Admin(self.net) as api:
            return x509.load_pem_x509_certificate(api.call("POST", "/edge/client/v1/enroll/ott", {"token": token, "clientCsr": request})["data"]["cert"].encode())

    def session(self):
        memory_of(pids_of(self.pump.dir)["sally-agent"][0], self.folder / "memory")
        return session_in((self.folder / "memory").read_bytes(), x509.load_pem_x509_certificate(self.pem("devices").read_bytes()))

    def fetch(self, path, out):
        done = run("curl", "--silent", "--fail", "--cacert", self.pem("root"), "-o", out, f"https://127.0.0.1:{self.net.port}/{path}")
        assert done.returncode == 0, done

    def certificates(self):
        return {p.stem for p in self.folder.glob("*.cer")}


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    net = Net()
    try:
        made = Issued(net, tmp_path_factory.mktemp("issued"))
        kinds = {"root", "devices", "infrastructure", "device", "device-of-a-year", "admin", "router", "controller", "signer", "responder-devices", "responder-infrastructure"}
        assert made.certificates() == kinds | (set() if SANITIZED else {"session"})
        yield made
    finally:
        net.close()


PURPOSE = {"signer": (), "responder-devices": ("-purpose", "ocsphelper"), "responder-infrastructure": ("-purpose", "ocsphelper")}  # OpenSSL has no name for the signer's


def test_openssl_and_gnutls_take_every_chain(issued):
    for name in issued.certificates() - {"root", "devices", "infrastructure"}:
        by = "devices" if name in ("device", "device-of-a-year", "session", "responder-devices") else "infrastructure"
        verified = run("openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", issued.pem("root"), "-untrusted", issued.pem(by), *PURPOSE.get(name, ("-purpose", "sslclient")),
                       issued.pem(name))
        assert verified.returncode == 0, f"{name}: {verified.stdout}{verified.stderr}"
        chain = issued.folder / "chain.pem"
        chain.write_text("".join(issued.pem(n).read_text() for n in (name, by, "root")))
        judged = run("certtool", "--verify-chain", "--infile", chain)
        assert judged.returncode == 0, f"{name}: {judged.stdout}{judged.stderr}"


# What pkilint may say, of what, and why it stays: anything else is an error, and so is a line here that it does not say.
SAN = "certificate.tbsCertificate.extensions.extnValue.subjectAltName."
ALLOWED = [
    # It knows schemes of the web alone; RFC 3986 and SPIFFE have more.
    ("(device|device-of-a-year|session|router|controller|admin|signer).cer", "ERROR", "pkix.invalid_uri_syntax", SAN + "uniformResourceIdentifier"),
    # "localhost", so that programs on the same machine need no other name: one label, which is none of the Internet's.
    ("(router|controller).cer", "ERROR", "pkix.invalid_domain_name_syntax", SAN + "dNSName"),
    # No fault: it recognises how the identifier is made, by SHA-256 and not by the SHA-1 of RFC 5280.
    (".*.cer", "INFO", "pkix.subject_key_identifier_rfc7093_method_1_identified", "certificate.tbsCertificate.extensions.extnValue.subjectKeyIdentifier"),
]


def test_pkilint_has_nothing_new_to_say(issued):
    said = certlint.findings(sorted(p for p in issued.folder.iterdir() if p.suffix in (".cer", ".crl", ".ocsp")))
    assert len(said) == len(issued.certificates()) + 3 + 5
    new, used = [], set()
    for name, found in said.items():
        for finding in found:
            rule = next((r for r in ALLOWED if re.fullmatch(r[0], name) and r[1:4] == finding), None)
            used.add(rule) if rule else new.append((name, *finding))
    assert not new, "\n".join(map(str, sorted(new)))
    assert used == set(ALLOWED), set(ALLOWED) - used
