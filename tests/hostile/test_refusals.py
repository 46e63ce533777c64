# SPDX-License-Identifier: Apache-2.0
"""Who is refused before any byte of the application: what the peer sees, and what our log says.

A certificate without its key (a stolen one) is in src/tls: no TLS library of another language can be made to send it.
GHSA-mrpr, GHSA-hhm9: the chain is valid for somebody, the leaf's key is proven for nobody else."""
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from forge import Forge, Identity, Peer
from harness import fields, wait_for


@pytest.fixture(scope="module")
def world(net):
    device = net.device("pump", ["sensors"])
    other = net.device("other")
    return net, Forge(net, device), Identity(device.identity), Identity(other.identity)


def codes(net, program):
    return [fields(line).get("code") for line in net.log(program).splitlines() if " handshake failed" in line or "refused" in line]


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
    port, alpn = (net.router_port, "sally-edge/1") if listener == "router" else (net.port, "sally-ctrl/1")
    before = len(codes(net, listener))
    peer = Peer(tmp_path, port, alpn, key, (cert,))
    assert not peer.accepted and peer.alert == 42, peer.output
    new = wait_for(lambda: codes(net, listener)[before:], what="a log line")
    assert any(c and c.startswith(code) for c in new), new


def test_intermediate_as_leaf(world, tmp_path):
    net, forge, _, _ = world
    cert, key = forge.ca["device"]
    peer = Peer(tmp_path, net.router_port, "sally-edge/1", key, (cert,))
    assert peer.alert == 42, peer.output


def test_no_certificate(world, tmp_path):
    net, _, _, _ = world
    assert Peer(tmp_path, net.router_port).alert == 116
    # REST asks for one and works without; a control lane does not.
    assert not Peer(tmp_path, net.port, "sally-ctrl/1").accepted


@pytest.mark.parametrize("claims", ["device", "router", "controller", "admin", "signer"])
def test_ghsa_mrpr_756c_xm47_own_leaf_with_genuine_filler(world, tmp_path, claims):
    net, forge, device, other = world
    key, fake = forge.leaf(role=claims, name=other.id, ca="self")
    for port, alpn in ((net.router_port, "sally-edge/1"), (net.port, "sally-ctrl/1")):
        for filler in (device.chain, other.chain, forge.device.bundle, [*other.chain, *forge.device.bundle]):
            peer = Peer(tmp_path, port, alpn, key, (fake, *filler))
            assert not peer.accepted and peer.alert == 42, peer.output


def test_ghsa_hhm9_wf63_g7qj_only_the_proven_leaf_counts(world, tmp_path):
    net, _, device, other = world
    before = net.log("router").count("router.device_up")
    # Ours first, somebody else's genuine leaf behind it, in several orders: we are ourselves or nobody.
    for rest in ((other.chain[0],), (device.chain[1], other.chain[0]), (other.chain[0], device.chain[1]), (device.chain[0], other.chain[0], other.chain[1])):
        Peer(tmp_path, net.router_port, "sally-edge/1", device.key, (device.chain[0], *rest))
    seen = net.log("router").split("router.device_up")[before + 1:]
    ups = [line.split()[0] for line in seen]
    assert all(u == f"device={device.id}" for u in ups), ups
    # (A lane counts as up after its HELLO, which s_client does not send; the acceptor's own log names nobody else either.)
    assert f"device/{other.id}" not in "".join(seen)


def test_every_listener_takes_its_own_roles_only(world, tmp_path):
    net, forge, device, _ = world
    router = Identity(net.context / "router/identity.json")
    admin = Identity(net.context / "admin.json")
    for who, port, alpn in ((router, net.router_port, "sally-edge/1"), (admin, net.router_port, "sally-edge/1"),
                            (device, net.port, "sally-ctrl/1"), (admin, net.port, "sally-ctrl/1")):
        peer = Peer(tmp_path, port, alpn, who.key, who.chain)
        assert not peer.accepted, (alpn, peer.output)
    # The same program lets the right ones in: the refusals above are not a broken test.
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain).accepted
    assert Peer(tmp_path, net.port, "sally-ctrl/1", router.key, router.chain).accepted


def test_what_is_not_tls_13_or_not_our_protocol(world, tmp_path):
    net, _, device, _ = world
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain, ("-tls1_2",)).alert == 70
    assert Peer(tmp_path, net.port, None, options=("-tls1_2",)).alert == 70
    assert Peer(tmp_path, net.router_port, "h2", device.key, device.chain).alert == 120
    assert not Peer(tmp_path, net.router_port, None, device.key, device.chain).accepted
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain, ("-groups", "P-256")).alert == 40
    assert Peer(tmp_path, net.router_port, "sally-edge/1", device.key, device.chain, ("-groups", "X25519")).accepted
