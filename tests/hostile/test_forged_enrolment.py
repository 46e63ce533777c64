# SPDX-License-Identifier: Apache-2.0
"""Tokens and requests that no client of ours would send, by raw HTTP. (tests/integration/test_enrolment.py: the command's own view.)

Expiry needs a clock that moves: src/pki, src/identity."""
import base64
import hashlib
import hmac
import itertools
import json
import ssl
import subprocess
import urllib.request
from http.client import HTTPException, HTTPSConnection
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from forge import stolen_key
from harness import SALLY, Net, sally


def encode(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def csr(folder, key=None):
    """A request in PEM; with a key file whose halves do not fit its proof of possession is wrong."""
    if key is None:
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    (folder / "k").write_text(key)
    subprocess.run(["openssl", "req", "-new", "-key", folder / "k", "-out", folder / "r", "-subj", "/CN=x"], check=True, capture_output=True)
    return (folder / "r").read_bytes()


class Door:
    """The controller's port on one connection: many requests are not many connections, which have a rate."""

    def __init__(self, net):
        self.connection = HTTPSConnection("127.0.0.1", net.port, context=ssl._create_unverified_context(), timeout=20)

    def post(self, path, body, kind="application/x-pem-file"):
        try:
            self.connection.request("POST", path, body, {"Content-Type": kind})
            answer = self.connection.getresponse()
        except (HTTPException, OSError):  # it had idled too long
            self.connection.close()
            self.connection.request("POST", path, body, {"Content-Type": kind})
            answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())


doors = {}


def enrol(net, token, request):
    """Status and decoded answer of POST /enroll."""
    return doors.setdefault(net.port, Door(net)).post(f"/enroll?method=ott&token={token}", request)


def refused(net, token, request, code, cause=None):
    status, answer = enrol(net, token, request)
    assert status == 400 and answer["error"]["code"] == code, (status, answer)
    if cause:
        assert answer["error"]["cause"]["code"] == cause, answer


def public_key(net):
    """The key that signs the network's tokens, as anybody can read it off the controller's port."""
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", net.port)).encode()).public_key()


def test_ghsa_4h58_w989_xgg4_signatures_that_only_look_right(net, tmp_path):
    token = net.sally("device", "add", "jwt")[0]["token"]
    head, body, signature = token.split(".")
    request = csr(tmp_path)
    key = public_key(net)
    for secret in (key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
                   key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo), b""):
        signed = f"{encode({'alg': 'HS256', 'typ': 'JWT'})}.{body}"
        refused(net, f"{signed}.{encode(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}", request, "INVALID_ENROLLMENT_TOKEN", "pki.token_altered")
    # Our own key, offered by every header that could carry one.
    mine = ec.generate_private_key(ec.SECP256R1())
    numbers = mine.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": encode(numbers.x.to_bytes(32, "big")), "y": encode(numbers.y.to_bytes(32, "big"))}
    for trick in ({"jwk": jwk}, {"kid": "../../keys/devices-1.key"}, {"kid": "' OR 1=1 --"}, {"jku": f"http://127.0.0.1:{net.port}/x"}, {"x5u": "file:///etc/passwd"}):
        signed = f"{encode({'alg': 'ES256', 'typ': 'JWT', **trick})}.{body}"
        r, s = decode_dss_signature(mine.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        refused(net, f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}", request, "INVALID_ENROLLMENT_TOKEN", "pki.token_altered")
    for alg in ("none", "None", "NONE", "", 7, None):
        for end in ("", signature):
            refused(net, f"{encode({'alg': alg, 'typ': 'JWT'})}.{body}.{end}", request, "INVALID_ENROLLMENT_TOKEN")
    # None of that used the token up.
    assert enrol(net, token, request)[0] == 200
    assert enrol(net, token, request)[0] == 400


def test_ghsa_4h58_w989_xgg4_only_the_cell_that_is_right_in_everything_enrols(net, tmp_path):
    """{audience} x {issuer} x {purpose} x {kid there, wrong, absent} x {algorithm}, signed with the network's own key: what else it signs enrols nobody."""
    token = net.sally("device", "add", "matrix")[0]["token"]
    head, claims = decode(token.split(".")[0]), decode(token.split(".")[1])
    key = serialization.load_pem_private_key((net.context / "controller/keys/rest.key").read_bytes(), None)
    request = csr(tmp_path)

    def sealed(header, body):
        text = f"{encode(header)}.{encode(body)}"
        r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    audiences = ([""], ["openziti-enroller"], [], "", None)
    issuers = (claims["iss"], claims["iss"] + "/", "https://elsewhere", None)
    purposes = ("ott", "network", "ca", None)
    headers = [head, {**head, "kid": "0" * 40}, {k: v for k, v in head.items() if k != "kid"}, {**head, "alg": "none"}, {**head, "alg": "HS256"}, {**head, "alg": "RS256"}]
    good = 0
    for audience, issuer, purpose, header in itertools.product(audiences, issuers, purposes, headers):
        body = {k: v for k, v in {**claims, "aud": audience, "iss": issuer, "em": purpose}.items() if v is not None}
        right = body == claims and header["alg"] == head["alg"]
        if right:  # a kid names one key: there is one, and it is the one that verifies
            good += 1
            continue
        refused(net, sealed(header, body), request, "INVALID_ENROLLMENT_TOKEN")
    # The token that everybody may read off the port is signed by the same key.
    with urllib.request.urlopen(f"https://127.0.0.1:{net.port}/network-jwts", context=ssl._create_unverified_context()) as answer:
        refused(net, json.loads(answer.read())["data"][0]["token"], request, "INVALID_ENROLLMENT_TOKEN", "pki.token_foreign")
    assert good == 3 and enrol(net, sealed(head, claims), request)[0] == 200


def test_4240_malformed_tokens_crash_nobody(net, tmp_path):
    token = net.sally("device", "add", "malformed")[0]["token"]
    head, body, signature = token.split(".")
    pid = net.pid("sally-controller")
    request = csr(tmp_path)
    deep = encode(b"[" * 2000)
    bad = ["", ".", "..", "...", "a", "a.b", "a.b.c", f"{head}..", f".{body}.", f"..{signature}", f"{head}.{body}", f"{head}.{body}.{signature}.", f"{head}.{body}.!!!", f"{head}.{encode(b'null')}.{signature}",
           f"{head}.{encode([])}.{signature}", f"{encode(7)}.{body}.{signature}", f"{encode({'alg': {}})}.{body}.{signature}", f"{deep}.{deep}.{deep}", f"{head}.{encode({'jti': 7, 'sally': 8})}.{signature}",
           f"{head}.{encode({'jti': None, 'sally': {'network': []}})}.{signature}", token[:-1], token + "A", token[:200], token.replace("e", "f", 1), "A" * 4000, "%00", "%ff" * 100, "-1", "../../x", "ey" * 1000,
           f"{head}.{encode(b'{' + b'}')}.{signature}", head + "\u2028"]
    bad = [quote(t, safe="%.-_") for t in bad]
    door = Door(net)
    for t in bad:
        for path in (f"/enroll?method=ott&token={t}", f"/enroll/ott?token={t}", f"/edge/client/v1/enroll?token={t}&method=ott&token={t}"):
            status, _ = door.post(path, request)
            assert 400 <= status < 500, (t, path, status)
        for document in ({"token": t}, {"token": [t]}, {"token": {"token": t}}, {"token": None}):
            status, _ = door.post("/enroll/ott", json.dumps({**document, "clientCsr": request.decode()}), "application/json")
            assert 400 <= status < 500, (t, document, status)
    for number, t in enumerate(bad):
        if "\0" in t or not t:
            continue
        run = subprocess.run([SALLY, "join", "--dir", tmp_path / f"j{number}", "--no-run", "--", t], capture_output=True, timeout=30, check=False)
        assert run.returncode in range(1, 8), (t, run)  # said, not crashed
    assert net.pid("sally-controller") == pid
    assert enrol(net, token, request)[0] == 200


def test_a_token_of_another_network_is_named_as_such(net, tmp_path):
    other = Net()
    try:
        foreign = other.sally("device", "add", "pump")[0]["token"]
        refused(net, foreign, csr(tmp_path), "INVALID_ENROLLMENT_TOKEN", "pki.token_foreign")
        assert sally("join", foreign, "--dir", tmp_path / "d", "--no-run")[0]["name"] == "pump"  # where it belongs, it is good
    finally:
        other.close()


def test_a_request_for_somebody_elses_key(net, tmp_path):
    """A public key that the sender cannot prove to have: no certificate, and the token lives."""
    victim = net.device("victim", run=False)
    leaf = x509.load_pem_x509_certificate(json.loads(victim.identity.read_text())["id"]["cert"].removeprefix("pem:").encode())
    token = net.sally("device", "add", "thief")[0]["token"]
    refused(net, token, csr(tmp_path, stolen_key(leaf)), "COULD_NOT_PROCESS_CSR")
    assert enrol(net, token, csr(tmp_path))[0] == 200


def test_4010_a_token_decides_the_role_not_the_one_who_sends_it(net, tmp_path):
    """Tokens of admins and routers make those, tokens of devices make devices: no request turns one into another."""
    for kind, add in (("device", ["device", "add"]), ("admin", ["admin", "add"])):
        token = net.sally(*add, f"role-{kind}")[0]["token"]
        status, answer = enrol(net, token, csr(tmp_path))
        assert status == 200, answer
        leaf = x509.load_pem_x509_certificate(answer["data"]["cert"].encode())
        uris = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.UniformResourceIdentifier)
        assert len(uris) == 1 and f"/{kind}/" in uris[0]


@pytest.mark.parametrize("what,body", [("nothing", b""), ("garbage", b"\x00\xff" * 500), ("certificate", None),
                                       ("empty", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")])
def test_what_is_no_request_uses_no_token(net, tmp_path, what, body):
    token = net.sally("device", "add", f"bad-{what}")[0]["token"]
    if body is None:
        body = ssl.get_server_certificate(("127.0.0.1", net.port)).encode()
    refused(net, token, body, "COULD_NOT_PROCESS_CSR")
    assert enrol(net, token, csr(tmp_path))[0] == 200
