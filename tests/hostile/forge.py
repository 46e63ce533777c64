# SPDX-License-Identifier: Apache-2.0
"""Certificates that a thief of nothing could not make: signed with the test network's own CA keys, wrong in one point each."""
import base64
import datetime
import json
import os
import re
import socket
import ssl
import subprocess
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.S)


def certificates(text):
    return [x509.load_pem_x509_certificate(p.encode()) for p in PEM.findall(text)]


def pem(*certs):
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certs)


def session_of(value):
    """The extension of a session certificate, with these bytes in it."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.83.2"), value)


def key_pem(key):
    return key if isinstance(key, str) else key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def stolen_key(certificate):
    """What a thief makes of a certificate: a key file with the victim's public half and his own private one.

    Libraries compare public halves only, so they load it and send the victim's certificate with a proof that is wrong."""
    secret = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32, "big")
    point = certificate.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    body = b"\x02\x01\x01\x04\x20" + secret + bytes.fromhex("a00a06082a8648ce3d030107a144034200") + point
    der = base64.encodebytes(b"\x30" + bytes([len(body)]) + body).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{der}-----END EC PRIVATE KEY-----\n"


def hello(network):
    """The frame with which a device's lane begins (docs/wire-protocol.md)."""
    field = lambda tag, value: bytes([tag << 3 | 2, len(value)]) + value
    message = b"\x08\x01\x10\x01" + field(4, network.encode()) + field(5, os.urandom(16))
    payload = field(1, message)
    return bytes(4) + len(payload).to_bytes(3, "little") + b"\x0c" + bytes(8) + payload


def tls(port, alpn=None, key=None, chain=(), folder=None):
    """A connection as TLS client that believes any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if key is not None:
        path = folder / "client.pem"
        path.write_text(key_pem(key) + pem(*chain))
        context.load_cert_chain(path)
    if alpn:
        context.set_alpn_protocols([alpn])
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))


def ask(port, alpn, key, chain, folder, first, enough):
    """What a listener makes of a certificate: the bytes that came back until `enough(bytes)` or the end, and the alert that ended it, if one did."""
    for _ in range(50):
        data = b""
        try:
            with tls(port, alpn, key, chain, folder) as s:
                s.settimeout(5)
                s.sendall(first)
                while not enough(data):
                    piece = s.recv(65536)
                    if not piece:
                        break
                    data += piece
            return data, None
        except ssl.SSLError as e:
            text = str(e).upper()
            for name, number in (("BAD CERTIFICATE", 42), ("DECRYPT ERROR", 51), ("CERTIFICATE REQUIRED", 116)):
                if name in text.replace("_", " "):
                    return data, number
            if data:
                return data, None
        except OSError:
            if data:
                return data, None
        time.sleep(0.2)  # NOLINT(sally-sleep): turned away by the rate of its source: it comes again
    raise AssertionError("never answered")


class Identity:
    """What an identity file holds."""

    def __init__(self, path):
        data = json.loads(path.read_text())
        strip = lambda t: t.removeprefix("pem:")
        self.key = serialization.load_pem_private_key(strip(data["id"]["key"]).encode(), None)
        self.chain = certificates(strip(data["id"]["cert"]))
        self.bundle = certificates(strip(data["id"]["ca"]))
        self.network = data["sally"]["network"]
        self.id = data["sally"]["id"]


class Forge:
    def __init__(self, net, device):
        keys = net.context / "controller/keys"
        load = lambda name: serialization.load_pem_private_key((keys / name).read_bytes(), None)
        self.device = Identity(device.identity)
        self.network = self.device.network
        self.ca = {}
        for cert in self.device.bundle:
            cn = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            if "Devices" in cn:
                self.ca["device"] = (cert, load("devices-1.key"))
            elif "Infrastructure" in cn:
                self.ca["infrastructure"] = (cert, load("infrastructure-1.key"))
            else:
                self.root = cert

    def leaf(self, role="device", name="d-forged", network=None, start=-3600, end=86400, ca=None, is_ca=False, eku=None, uris=None, issuer=None, more=()):
        """(key, certificate). `ca` None: the CA that the role belongs to; "self": self-signed. `more`: (extension, critical)."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.timezone.utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        if issuer is None:
            issuer = (None, key) if ca == "self" else self.ca[ca or ("device" if role == "device" else "infrastructure")]
        issuer_cert, issuer_key = issuer
        if issuer_cert is None:
            aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        else:
            ski = issuer_cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)
        uris = [f"spiffe://{network or self.network}/{role}/{name}"] if uris is None else uris
        ekus = eku if eku is not None else [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer_cert.subject if issuer_cert else subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now + datetime.timedelta(seconds=start)).not_valid_after(now + datetime.timedelta(seconds=end))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=not is_ca, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
                                         key_cert_sign=is_ca, crl_sign=is_ca, encipher_only=False, decipher_only=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(aki, critical=False))
        if ekus:
            builder = builder.add_extension(x509.ExtendedKeyUsage(ekus), critical=False)
        if uris:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uris]), critical=False)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        return key, builder.sign(issuer_key, hashes.SHA256())


class Peer:
    """One handshake as a TLS client, with whatever chain, by `openssl s_client`; what the other side said."""

    def __init__(self, folder, port, alpn="sally-edge/1", key=None, chain=(), options=()):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *options]
        if "-tls1_2" not in options:
            command.append("-tls1_3")
        if alpn:
            command += ["-alpn", alpn]
        if key is not None:
            leaf, rest = folder / "leaf.pem", folder / "rest.pem"
            leaf.write_text(key_pem(key) + pem(chain[0]))
            command += ["-cert", str(leaf), "-key", str(leaf)]
            if len(chain) > 1:
                rest.write_text(pem(*chain[1:]))
                command += ["-cert_chain", str(rest)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = ""
        until = time.monotonic() + 3
        # A refused peer's s_client ends by itself; one that was let in is ended by us, once it has had time to be refused.
        try:
            self.output, _ = process.communicate(timeout=max(0.1, until - time.monotonic()))
            self.accepted = False
        except subprocess.TimeoutExpired:
            process.kill()
            self.output, _ = process.communicate()
            self.accepted = True
        self.output = self.output.decode(errors="replace")
        found = re.search(r"alert number (\d+)", self.output)
        self.alert = int(found.group(1)) if found else None
