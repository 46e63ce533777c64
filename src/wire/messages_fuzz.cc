// SPDX-License-Identifier: Apache-2.0
// The first byte chooses a decoder. What decodes must encode and decode to an equal value.
#include "base/check.h"
#include "wire/messages.h"

namespace {

using namespace sally;
using namespace sally::wire;

template <typename M>
void round_trip(Result<M> (*decode)(ByteView), ByteView in) {
  const auto first = decode(in);
  if (!first) return;
  const Bytes again = encode(*first);
  const auto second = decode(again);
  // Only the cap on the whole message may differ: an encoder may write more bytes than a terse peer
  // did.
  if (!second) {
    SALLY_CHECK(second.error().is(Errc::kTooLarge));
    return;
  }
  SALLY_CHECK(*first == *second);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ByteView in(data + 1, size - 1);
  switch (data[0] % 23) {
    case 0:
      round_trip(decode_envelope, in);
      break;
    case 1:
      round_trip(decode_card, in);
      break;
    case 2:
      round_trip(decode_service_record, in);
      break;
    case 3:
      round_trip(decode_setup, in);
      break;
    case 4:
      round_trip(decode_dial_proof, in);
      break;
    case 5:
      round_trip(decode_setup_frame, in);
      break;
    case 6:
      round_trip(decode_route, in);
      break;
    case 7:
      round_trip(decode_setup_ok_frame, in);
      break;
    case 8:
      round_trip(decode_host_answer, in);
      break;
    case 9:
      round_trip(decode_answer, in);
      break;
    case 10:
      round_trip(decode_setup_err, in);
      break;
    case 11:
      round_trip(decode_reset, in);
      break;
    case 12:
      round_trip(decode_path_down, in);
      break;
    case 13:
      round_trip(decode_bind_proof, in);
      break;
    case 14:
      round_trip(decode_control, in);
      break;
    case 15:
      round_trip(decode_state_update, in);
      break;
    case 16:
      round_trip(decode_state_head, in);
      break;
    case 17:
      round_trip(decode_snapshot_head, in);
      break;
    case 18:
      round_trip(decode_snapshot, in);
      break;
    case 19:
      round_trip(decode_log_entry, in);
      break;
    case 20:
      round_trip(decode_state_op, in);
      break;
    case 21:
      round_trip(decode_renewal_request, in);
      break;
    case 22:
      round_trip(decode_session_token, in);
      break;
    default:
      break;
  }
  return 0;
}
