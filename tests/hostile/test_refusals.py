# SPDX-License-Identifier: Apache-2.0
"""Who is refused before any byte of the application: what the peer sees, and what our log says.

GHSA-mrpr, GHSA-hhm9: the chain is valid for somebody, the leaf's key is proven for nobody else."""
import base64
import contextlib
import itertools
import json
import os
import random

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from forge import Forge, Identity, Peer, ask, hello, session_of, stolen_key
from harness import Net, fields, sally, wait_for


@pytest.fixture(scope="module")
def world(net):
    device = net.device("pump", ["sensors"])
    other = net.device("other")
    return net, Forge(net, device), Identity(device.identity), Identity(other.identity)


# Everything that listens for certificates: port, protocol, program.
LISTENERS = {
    "router": lambda net: (net.router_port, "sally-edge/1", "router"),
    "controller": lambda net: (net.port, "sally-ctrl/1", "controller"),
    "rest": lambda net: (net.port, "http/1.1", "controller"),
}


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def codes(net, program):
    return [fields(line).get("code") for line in net.log(program).splitlines() if "tls.handshake_failed" in line or "refused" in line]


def refused(net, listener, folder, key=None, chain=(), alert=42, code="", alpn=None, options=()):
    """One handshake that must fail: the alert the peer saw, and the reason in our log."""
    port, protocol, program = LISTENERS[listener](net)
    before = len(codes(net, program))
    new = []
    for _ in range(5):
        # Of one code 50 lines come at once and 10 a second, the rest is counted only; and one source may connect so often.
        peer = Peer(folder, port, alpn or protocol, key, chain, options)
        assert not peer.accepted, peer.output
        if peer.alert is None:
            continue
        assert peer.alert == alert, (peer.alert, peer.output)
        with contextlib.suppress(AssertionError):
            new = wait_for(lambda: codes(net, program)[before:], seconds=2, what="a log line")
            break
    assert new, "no log line"
    assert any(c and c.startswith(code) for c in new), new


BAD = {
    # name: (how to make key and chain, code in our log)
    "expired": (lambda f: f.leaf(start=-7200, end=-60), "crypto.expired"),
    "not yet valid": (lambda f: f.leaf(start=3600), "crypto.not_yet_valid"),
    "wrong trust domain": (lambda f: f.leaf(network="n-other.sally"), "crypto.wrong_trust_domain"),
    "unknown CA": (lambda f: f.leaf(ca="self"), "crypto.unknown_ca"),
    "a CA as leaf": (lambda f: f.leaf(is_ca=True), "crypto.intermediate_as_leaf"),
    "no identity": (lambda f: f.leaf(uris=[]), "crypto.malformed_uri"),
    "two identities": (lambda f: f.leaf(uris=[f"spiffe://{f.network}/device/a", f"spiffe://{f.network}/device/b"]), "crypto.malformed_uri"),
    "not for TLS": (lambda f: f.leaf(eku=[ExtendedKeyUsageOID.CODE_SIGNING]), "crypto.wrong_eku"),
    "a router by the devices' CA": (lambda f: f.leaf(role="router", ca="device"), ("crypto.wrong_issuer", "crypto.wrong_role")),
    "a device by the infrastructure's CA": (lambda f: f.leaf(role="device", ca="infrastructure"), ("crypto.wrong_issuer", "crypto.wrong_role")),
    "a session of nobody": (lambda f: f.leaf(more=[(session_of(b"\x04\x00"), False)]), "crypto.malformed"),
    "a session that must be understood": (lambda f: f.leaf(more=[(session_of(b"\x04\x01\x4f"), True)]), "crypto.unknown_critical"),
    "a router's session": (lambda f: f.leaf(role="router", more=[(session_of(b"\x04\x01\x4f"), False)]), "crypto.wrong_role"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("listener", LISTENERS)
def test_ghsa_mrpr_756c_xm47_bad_certificates_look_the_same_to_the_peer_and_differ_in_our_log(world, tmp_path, what, listener):
    net, forge, _, _ = world
    make, code = BAD[what]
    key, cert = make(forge)
    refused(net, listener, tmp_path, key, (cert,), code=code)


@pytest.mark.parametrize("listener", LISTENERS)
def test_intermediate_as_leaf(world, tmp_path, listener):
    net, forge, _, _ = world
    cert, key = forge.ca["device"]
    refused(net, listener, tmp_path, key, (cert,), code="crypto.")


@pytest.mark.parametrize("listener", ["router", "controller"])
def test_no_certificate(world, tmp_path, listener):
    """116 on every lane. The controller's port asks REST clients for one and works without; a control lane does not."""
    net, _, _, _ = world
    refused(net, listener, tmp_path, alert=116, code="tls.no_certificate")


@pytest.mark.parametrize("listener", ["router", "controller"])
def test_a_stolen_certificate_without_its_key(world, tmp_path, listener):
    net, _, _, other = world
    victim = other if listener == "router" else Identity(net.context / "router/identity.json")
    refused(net, listener, tmp_path, stolen_key(victim.chain[0]), victim.chain, alert=51, code="tls.handshake")


@pytest.mark.parametrize("claims", ["device", "router", "controller", "admin", "signer"])
def test_ghsa_mrpr_756c_xm47_own_leaf_with_genuine_filler(world, tmp_path, claims):
    net, forge, device, other = world
    key, fake = forge.leaf(role=claims, name=other.id, ca="self")
    for listener in LISTENERS:
        for filler in (device.chain, other.chain, forge.device.bundle, [*other.chain, *forge.device.bundle]):
            refused(net, listener, tmp_path, key, (fake, *filler), code="crypto.unknown_ca")


def test_ghsa_mrpr_756c_xm47_is_audited(tmp_path):
    net = Net()  # the audit takes a few of these and then one a minute
    try:
        forge = Forge(net, net.device("pump", run=False))
        rows = lambda action: [a for a in net.audit() if a["action"] == action]
        key, fake = forge.leaf(role="controller", name="c", ca="self")
        for listener, action in (("router", "router.peer_refused"), ("controller", "controller.peer_refused"), ("rest", "controller.peer_refused")):
            before = len(rows(action))
            port, protocol, _ = LISTENERS[listener](net)
            assert Peer(tmp_path, port, protocol, key, (fake, *forge.device.chain)).alert == 42
            wait_for(lambda: len(rows(action)) == before + 1, what=f"audit row of {listener}")
            assert "crypto.unknown_ca" in str(rows(action)[0])
        assert net.sally("audit", "verify")[0]["ok"] is True
    finally:
        net.close()


def tails(*certs):
    """Every sequence of up to three of them, duplicates included."""
    return [t for n in range(1, 4) for t in itertools.product(certs, repeat=n)]


def test_ghsa_hhm9_wf63_g7qj_only_the_proven_leaf_counts_at_a_router(world, tmp_path):
    net, forge, device, other = world
    ids = device.id.encode(), other.id.encode()
    named = lambda data: any(i in data for i in ids)  # the card that the router sends to whom it takes us for
    for tail in tails(device.chain[0], other.chain[0], device.chain[1], forge.root):
        data, alert = ask(net.router_port, "sally-edge/1", device.key, (device.chain[0], *tail), tmp_path, hello(device.network), named)
        assert alert is None and ids[0] in data and ids[1] not in data, (alert, data)
        # The other's leaf first is a claim that the key does not prove.
        data, alert = ask(net.router_port, "sally-edge/1", stolen_key(other.chain[0]), (other.chain[0], *tail), tmp_path, hello(device.network), named)
        assert alert == 51 and not data


def test_ghsa_hhm9_wf63_g7qj_only_the_proven_leaf_counts_at_the_controller(world, tmp_path):
    net, forge, device, _ = world
    token = net.sally("admin", "add", "eve")[0]["token"]
    sally("login", token, "--dir", tmp_path / "eve")
    root, eve = Identity(net.context / "admin.json"), Identity(tmp_path / "eve/admin.json")
    end = lambda data: b"\r\n\r\n" in data
    made = []
    # Accepted as eve whatever else is shown, also on REST; nobody speaks as root with a key that is not root's.
    for tail in tails(root.chain[0], eve.chain[0], eve.chain[1]):
        name = f"hhm9-{len(made)}"
        body = f'{{"name":"{name}"}}'.encode()
        post = b"POST /fleet/v1/devices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        data, alert = ask(net.port, "http/1.1", eve.key, (eve.chain[0], *tail), tmp_path, post, end)
        assert alert is None and b" 201 " in data, (alert, data[:200])
        made.append(name)
        data, alert = ask(net.port, "http/1.1", stolen_key(root.chain[0]), (root.chain[0], *tail), tmp_path, post, end)
        assert alert == 51 and not data
    actors = {a["actor"] for a in net.audit() if a["action"] == "device.add" and a["detail"]["name"].startswith("hhm9-")}
    assert actors == {f"admin/{eve.id}"}, actors
    # The control lane: a router's leaf behind somebody else's is no router's, whatever the order.
    router = Identity(net.context / "router/identity.json")
    for tail in tails(router.chain[0], router.chain[1], device.chain[0]):
        _, alert = ask(net.port, "sally-ctrl/1", device.key, (device.chain[0], *tail), tmp_path, hello(device.network), bool)
        assert alert == 42
        _, alert = ask(net.port, "sally-ctrl/1", stolen_key(router.chain[0]), (router.chain[0], *tail), tmp_path, hello(device.network), bool)
        assert alert == 51
    wait_for(lambda: net.sally("status")[0]["network"]["routers"][0]["online"], what="the real router was never replaced")


def test_ghsa_cc5m_7mhm_xh9f_no_hello_makes_anybody_somebody_else(world, tmp_path):
    net, _, device, other = world
    rng = random.Random(5)
    card = json.loads((net.dir / "dev-other/identity.json").read_text())["sally"].get("card", "")
    field = lambda tag, wire, body: varint(tag << 3 | wire) + body
    text = lambda tag, value: field(tag, 2, varint(len(value)) + value)
    pieces = [
        lambda: b"", lambda: text(4, device.network.encode()), lambda: text(4, b""), lambda: text(4, b"net-b.sally"), lambda: text(4, b"n" * 300),
        lambda: text(5, os.urandom(16)), lambda: text(5, os.urandom(15)), lambda: text(8, other.id.encode()), lambda: text(8, b"a" * 9000), lambda: text(9, other.id.encode()),
        lambda: text(9, base64.b64decode(card) if card else os.urandom(300)), lambda: field(1, 0, varint(rng.randrange(4))), lambda: field(2, 0, varint(rng.randrange(1 << 40))),
        lambda: field(3, 0, varint(1 << 63)), lambda: field(10, 0, varint(rng.randrange(1 << 50))), lambda: text(11, os.urandom(32)), lambda: text(rng.randrange(12, 4000), other.id.encode()),
        lambda: field(rng.randrange(1, 400), 5, os.urandom(4)), lambda: text(1, b"raft"), lambda: os.urandom(20),
    ]
    good = b"\x08\x01\x10\x01" + text(4, device.network.encode()) + text(5, os.urandom(16))
    frame = lambda payload, more=0: bytes(4) + len(payload).to_bytes(3, "little") + bytes([0x0c | more << 4]) + bytes(8) + payload
    ids = device.id.encode(), other.id.encode()
    named = lambda data: any(i in data for i in ids)
    accepted = 0
    for i in range(150):
        message = b"".join(rng.choice(pieces)() for _ in range(rng.randrange(5)))
        message = [message, good + message, message + good, good + good + message][i % 4]
        first = frame(text(rng.choice((1, 1, 1, 1, 2, 3, 7, 15)), message)[:16368])
        for key, chain, wanted in ((device.key, device.chain, ids[0]), (other.key, other.chain, ids[1])):
            data, alert = ask(net.router_port, "sally-edge/1", key, chain, tmp_path, first, lambda d: named(d) or b"lane." in d or b"wire." in d)
            assert alert is None
            found = [i for i in ids if i in data]
            assert found in ([], [wanted]), (message, data)
            accepted += bool(found)
        # Without a certificate, or with one that the port does not take, no hello is read.
        if i % 10 == 0:
            assert ask(net.router_port, "sally-edge/1", None, (), tmp_path, first, bool) == (b"", 116)
            assert ask(net.port, "sally-ctrl/1", None, (), tmp_path, first, bool) == (b"", 116)
            assert ask(net.port, "sally-ctrl/1", other.key, other.chain, tmp_path, first, bool) == (b"", 42)
    assert accepted > 20, accepted  # the good ones among them: it is a test of something


def test_ghsa_mrpr_756c_xm47_every_listener_takes_its_own_roles_only(world, tmp_path):
    net, forge, device, _ = world
    router = Identity(net.context / "router/identity.json")
    admin = Identity(net.context / "admin.json")
    for who, listener in ((router, "router"), (admin, "router"), (device, "controller"), (admin, "controller")):
        refused(net, listener, tmp_path, who.key, who.chain, code="crypto.wrong_role")
    # The same program lets the right ones in: the refusals above are not a broken test.
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain).accepted
    assert Peer(tmp_path, net.port, "sally-ctrl/1", router.key, router.chain).accepted


def test_what_is_not_tls_13_or_not_our_protocol(world, tmp_path):
    net, _, device, _ = world
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain, ("-tls1_2",)).alert == 70
    assert Peer(tmp_path, net.port, None, options=("-tls1_2",)).alert == 70
    assert Peer(tmp_path, net.router_port, "h2", device.key, device.chain).alert == 120
    assert Peer(tmp_path, net.port, "h2", device.key, device.chain).alert == 120
    assert Peer(tmp_path, net.router_port, "sally-ctrl/1", device.key, device.chain).alert == 120
    assert Peer(tmp_path, net.router_port, None, device.key, device.chain).accepted  # as foreign SDKs come: their first bytes decide
    assert Peer(tmp_path, net.router_port, None).alert == 116
    assert Peer(tmp_path, net.router_port, None, device.key, device.chain, ("-groups", "P-256")).alert == 40
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain, ("-groups", "P-256")).alert == 40
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain, ("-groups", "X25519")).accepted
    # The controller's port lets others use P-256 (docs/compatible-enrolment.md), never a control lane.
    assert Peer(tmp_path, net.port, "sally-ctrl/1", device.key, device.chain, ("-groups", "P-256")).alert == 120
    assert Peer(tmp_path, net.port, "sally-ctrl/1", device.key, device.chain, ("-groups", "X25519")).alert == 42
    assert Peer(tmp_path, net.port, "http/1.1", options=("-groups", "P-256")).accepted
