// SPDX-License-Identifier: Apache-2.0
// Bytes of a peer at every verifier of this folder: nothing is believed, because the one trusted
// root signed nothing here.
#include "base/check.h"
#include "crypto/issue.h"
#include "trust/circuit.h"
#include "trust/records.h"

namespace {

using namespace sally;
using namespace sally::trust;

struct World {
  crypto::FileKeyPtr key;
  Anchors anchors;
  SignerSet signers;
  World() {
    key = crypto::FileKey::generate(crypto::KeyType::kP256).value();
    crypto::CertSpec spec;
    spec.common_name = "root";
    spec.not_after_s = 4'000'000'000;
    spec.ca = true;
    SeededRandom random(1);
    anchors.roots = {
        crypto::sign_certificate(spec, key->public_key(), nullptr, *key, random).value()};
    anchors.network = "net-a.sally";
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const World w;
  if (size == 0) return 0;
  const ByteView in(data + 1, size - 1);
  const Context ctx{w.anchors, w.signers, nullptr, 1'800'000'000'000};
  switch (data[0] % 9) {
    case 0:
      SALLY_CHECK(!verify_card(in, ctx));
      break;
    case 1:
      SALLY_CHECK(!verify_service_record(in, ctx));
      break;
    case 2:
      SALLY_CHECK(!verify_state_head(in, ctx));
      SALLY_CHECK(!verify_snapshot_head(in, ctx));
      break;
    case 3:
      if (const auto setup = wire::decode_setup(in)) SALLY_CHECK(!verify_dial(*setup, "r-1", ctx));
      break;
    case 4:
      SALLY_CHECK(!verify_route(in, in, wire::Setup{}, 0, ctx));
      break;
    case 5:
      SALLY_CHECK(!verify_answer(in, AnswerExpected{}, ctx));
      break;
    case 6:
      SALLY_CHECK(!open(in, wire::EnvelopeType::kBindProof, "net-a.sally", w.key->public_key()));
      break;
    case 7: {
      SignerSet set;
      SALLY_CHECK(!set.add({to_bytes(in), w.anchors.roots[0].der()}, w.anchors, 1'800'000'000));
      break;
    }
    case 8:
      SALLY_CHECK(!verify_session_token(as_text(in), wire::SessionUse::kDial, "d-1", ctx));
      SALLY_CHECK(!verify_session_token(std::string(kSessionPrefix) + to_base64url(in),
                                        wire::SessionUse::kApi, "d-1", ctx));
      break;
    default:
      break;
  }
  return 0;
}
