// SPDX-License-Identifier: Apache-2.0
// For tests above crypto/: one network with a signer, two routers, two devices, and good examples
// of all that is signed.
#pragma once

#include <set>
#include <string>

#include "crypto/test_pki.h"
#include "trust/circuit.h"
#include "trust/records.h"

namespace sally::trust {

/// A revocation view that a test fills.
class TestRevocation final : public Revocation {
 public:
  [[nodiscard]] bool serial_revoked(std::string_view s) const override {
    return serials.contains(std::string(s));
  }
  [[nodiscard]] bool identity_alive(std::string_view id, std::uint64_t epoch) const override {
    return !dead.contains(std::string(id)) && epoch >= min_epoch;
  }
  [[nodiscard]] bool router_known(std::string_view id) const override {
    return routers.contains(std::string(id));
  }
  std::set<std::string> serials, dead, routers{"r-1", "r-2", "r-3"};
  std::uint64_t min_epoch = 0;
};

struct TestWorld {
  explicit TestWorld(const std::string& network = "net-a.sally")
      : pki(network),
        signer(pki.leaf(crypto::Role::kSigner, "1")),
        device(pki.leaf(crypto::Role::kDevice, "d-1")),
        host(pki.leaf(crypto::Role::kDevice, "d-2")),
        router(pki.leaf(crypto::Role::kRouter, "r-1")),
        egress(pki.leaf(crypto::Role::kRouter, "r-2")),
        now_ms(pki.now_s * 1000) {
    anchors.network = pki.network;
    anchors.roots = {pki.root};
    if (auto s = signers.add(signer_chain(), anchors, pki.now_s); !s) std::abort();
  }

  [[nodiscard]] wire::SignerChain signer_chain() const {
    return {signer.cert.der(), pki.infrastructure.der()};
  }
  [[nodiscard]] Context ctx() const { return {anchors, signers, &revocation, now_ms}; }
  [[nodiscard]] wire::Card card(const std::string& id = "d-1") const {
    return {pki.network, id, "pump-17", {"sensors"}, 1, 1, now_ms + 86'400'000};
  }
  [[nodiscard]] wire::ServiceRecord record() const {
    wire::ServiceRecord r;
    r.network = pki.network;
    r.id = "s-1";
    r.name = "plant-mqtt";
    r.e2e = wire::E2e::kTls;
    r.dial = {"#sensors"};
    r.bind = {"@d-2"};
    r.version = 4;
    r.not_after_ms = now_ms + 86'400'000;
    return r;
  }
  /// Signed and complete, for a lane into r-1.
  [[nodiscard]] wire::Setup setup() const {
    wire::Setup s;
    s.kind = wire::SetupKind::kOpen;
    s.network = pki.network;
    s.circuit.raw.fill(7);
    s.epoch = 1;
    s.attempt = 2;
    s.service = "s-1";
    s.client_hello = {22, 3, 1, 5};
    s.next_expected = 9;
    s.leaf = device.cert.der();
    s.issuing = pki.devices.der();
    s.card = crypto::must(make_card(card(), *signer.key));
    s.proof = crypto::must(make_dial_proof(s, "r-1", now_ms, *device.key));
    return s;
  }
  [[nodiscard]] wire::Route route(const wire::Setup& s) const {
    wire::Route r;
    r.network = pki.network;
    r.circuit = s.circuit;
    r.epoch = s.epoch;
    r.attempt = 1;
    r.service = s.service;
    r.terminator = "t-1";
    r.hops = {"r-1", "r-3", "r-2"};
    r.expiry_ms = now_ms + 10'000;
    r.setup_hash = hash_of(wire::encode(s));
    r.instance.fill(3);
    r.ingress_leaf = router.cert.der();
    r.ingress_issuing = pki.infrastructure.der();
    return r;
  }
  [[nodiscard]] wire::Answer answer(const wire::Setup& s) const {
    wire::Answer a;
    a.network = pki.network;
    a.terminator = "t-1";
    a.instance.fill(3);
    a.host.circuit = s.circuit;
    a.host.epoch = s.epoch;
    a.host.attempt = s.attempt;
    a.host.flight = {22, 3, 3};
    a.host.card = crypto::must(make_card(card("d-2"), *signer.key));
    a.egress = "r-2";
    a.egress_leaf = egress.cert.der();
    a.egress_issuing = pki.infrastructure.der();
    return a;
  }
  [[nodiscard]] wire::BindProof bind() const {
    wire::BindProof b;
    b.network = pki.network;
    b.service = "s-1";
    b.instance.fill(3);
    b.router = "r-2";
    b.time_ms = now_ms;
    return b;
  }
  [[nodiscard]] wire::Terminator terminator() const {
    wire::Terminator t;
    t.id = "t-1";
    t.service = "s-1";
    t.device = "d-2";
    t.instance.fill(3);
    t.router = "r-2";
    t.since_ms = now_ms;
    t.proof = crypto::must(make_bind_proof(bind(), *host.key));
    t.leaf = host.cert.der();
    t.issuing = pki.devices.der();
    return t;
  }

  crypto::TestPki pki;
  crypto::TestLeaf signer, device, host, router, egress;
  Anchors anchors;
  SignerSet signers;
  TestRevocation revocation;
  std::int64_t now_ms;
};

}  // namespace sally::trust
