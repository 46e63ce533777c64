# SPDX-License-Identifier: Apache-2.0
"""Who is refused before any byte of the application: what the peer sees, and what our log says.

GHSA-mrpr, GHSA-hhm9: the chain is valid for somebody, the leaf's key is proven for nobody else."""
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from forge import Forge, Identity, Peer, hello, stolen_key, tls
from harness import fields, wait_for


@pytest.fixture(scope="module")
def world(net):
    device = net.device("pump", ["sensors"])
    other = net.device("other")
    return net, Forge(net, device), Identity(device.identity), Identity(other.identity)


def codes(net, program):
    return [fields(line).get("code") for line in net.log(program).splitlines() if "tls.handshake_failed" in line or "refused" in line]


def refused(net, listener, folder, key=None, chain=(), alert=42, code="", alpn=None, options=()):
    """One handshake that must fail: the alert the peer saw, and the reason in our log."""
    port, protocol = (net.router_port, "sally-edge/1") if listener == "router" else (net.port, "sally-ctrl/1")
    before = len(codes(net, listener))
    peer = Peer(folder, port, alpn or protocol, key, chain, options)
    assert not peer.accepted and peer.alert == alert, (peer.alert, peer.output)
    new = wait_for(lambda: codes(net, listener)[before:], what="a log line")
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
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("listener", ["router", "controller"])
def test_bad_certificates_look_the_same_to_the_peer_and_differ_in_our_log(world, tmp_path, what, listener):
    net, forge, _, _ = world
    make, code = BAD[what]
    key, cert = make(forge)
    refused(net, listener, tmp_path, key, (cert,), code=code)


@pytest.mark.parametrize("listener", ["router", "controller"])
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
    for listener in ("router", "controller"):
        for filler in (device.chain, other.chain, forge.device.bundle, [*other.chain, *forge.device.bundle]):
            refused(net, listener, tmp_path, key, (fake, *filler), code="crypto.unknown_ca")


def test_ghsa_hhm9_wf63_g7qj_only_the_proven_leaf_counts(world, tmp_path):
    net, _, device, other = world
    lines = lambda: [line for line in net.log("router").splitlines() if "router.device_up" in line]
    # Ours first, somebody else's genuine leaf behind it, in several orders: we are ourselves or nobody.
    for rest in ((other.chain[0],), (device.chain[1], other.chain[0]), (other.chain[0], device.chain[1]), (device.chain[0], other.chain[0], other.chain[1])):
        before = len(lines())
        with tls(net.router_port, "sally-edge/1", device.key, (device.chain[0], *rest), tmp_path) as s:
            s.sendall(hello(device.network))
            new = wait_for(lambda: lines()[before:], what="a lane that is up")
        assert [fields(line)["device"] for line in new] == [device.id], new
        assert not any(other.id in line for line in new)
    # The other's leaf first is a claim that the key does not prove.
    for chain in ((other.chain[0], device.chain[0]), (other.chain[0], device.chain[0], other.chain[1])):
        refused(net, "router", tmp_path, stolen_key(other.chain[0]), chain, alert=51, code="tls.handshake")


def test_every_listener_takes_its_own_roles_only(world, tmp_path):
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
    assert Peer(tmp_path, net.router_port, None, device.key, device.chain).alert == 120
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain, ("-groups", "P-256")).alert == 40
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain, ("-groups", "X25519")).accepted
    # The controller's port lets others use P-256 (docs/compatible-enrolment.md), never a control lane.
    assert Peer(tmp_path, net.port, "sally-ctrl/1", device.key, device.chain, ("-groups", "P-256")).alert == 120
    assert Peer(tmp_path, net.port, "sally-ctrl/1", device.key, device.chain, ("-groups", "X25519")).alert == 42
    assert Peer(tmp_path, net.port, "http/1.1", options=("-groups", "P-256")).accepted
