// SPDX-License-Identifier: Apache-2.0
// Every message of proto/lane.proto as a plain struct. encode() trusts its input; decode_*() is
// total, caps every field and list, refuses enums out of range and fields that must be there and
// are not, and ignores fields it does not know. Plain values; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"
#include "wire/error.h"

namespace sally::wire {

using Hash = std::array<std::uint8_t, 32>;  ///< SHA-256
using KeyId = std::array<std::uint8_t, 8>;  ///< first bytes of SHA-256 of a SubjectPublicKeyInfo
using InstanceId = std::array<std::uint8_t, 16>;  ///< one hosting instance, random
using ProcessEpoch = std::array<std::uint8_t, 16>;

// Caps that callers may need.
inline constexpr std::size_t kMaxNetwork = 255;
inline constexpr std::size_t kMaxId = 128;
inline constexpr std::size_t kMaxName = 256;
inline constexpr std::size_t kMaxNote = 256;  ///< free text of errors; longer is cut by encode()
inline constexpr std::size_t kMaxAttributes = 64;
inline constexpr std::size_t kMaxExpressions = 256;
inline constexpr std::size_t kMaxConfig = 8'192;     ///< JSON of one config
inline constexpr std::size_t kMaxEnvelope = 65'536;  ///< a whole envelope
inline constexpr std::size_t kMaxClientHello = 4'096;
inline constexpr std::size_t kMaxFlight = 8'192;
inline constexpr std::size_t kMaxAppData = 1'024;
inline constexpr std::size_t kMaxCertificate = 4'096;
inline constexpr std::size_t kMaxHops = 8;

// ---- signed things
// -------------------------------------------------------------------------------------
enum class EnvelopeType : std::uint16_t {
  kNone = 0,
  kCard = 1,
  kServiceRecord = 2,
  kDialProof = 3,
  kBindProof = 4,
  kRoute = 5,
  kAnswer = 6,
  kStateHead = 7,
  kStateSnapshot = 8,
  kRenewal = 9,
  kSession = 10,
};
struct Envelope {
  std::string network;
  EnvelopeType type = EnvelopeType::kNone;
  Bytes payload;
  KeyId key_id{};
  Bytes signature;
  friend bool operator==(const Envelope&, const Envelope&) = default;
};
/// What is signed: "sally1" 00 type(u16 big endian) length(u8) network key_id payload. `network`
/// is 1..255 bytes.
Bytes signed_bytes(std::string_view network, EnvelopeType type, const KeyId& key_id,
                   ByteView payload);

struct Card {
  std::string network;
  std::string id;
  std::string name;
  std::vector<std::string> attributes;  ///< tags without '#'
  std::uint64_t attr_epoch = 0;
  std::uint64_t credential_epoch = 0;
  std::int64_t not_after_ms = 0;
  std::int64_t issued_ms = 0;  ///< 0: not said
  friend bool operator==(const Card&, const Card&) = default;
};
enum class E2e : std::uint8_t { kUnset = 0, kTls = 1, kCompatible = 2, kNone = 3 };
struct ServiceRecord {
  std::string network;
  std::string id;
  std::string name;
  E2e e2e = E2e::kUnset;
  std::vector<std::string> dial;  ///< role expressions, any one is enough
  std::vector<std::string> bind;
  std::uint64_t version = 0;
  std::int64_t not_after_ms = 0;
  std::string host_config;
  std::string intercept_config;
  friend bool operator==(const ServiceRecord&, const ServiceRecord&) = default;
};
/// Certificate of the network's signer with its issuing certificate, DER.
struct SignerChain {
  Bytes leaf;
  Bytes issuing;
  friend bool operator==(const SignerChain&, const SignerChain&) = default;
};

// ---- circuits
// ------------------------------------------------------------------------------------------
enum class SetupKind : std::uint8_t { kNone = 0, kOpen = 1, kMove = 2 };
struct Setup {
  SetupKind kind = SetupKind::kNone;
  std::string network;
  CircuitId circuit;
  std::uint32_t epoch = 0;
  std::uint32_t attempt = 0;
  std::string service;
  Bytes client_hello;
  Bytes app_data;
  std::uint64_t next_expected = 0;
  Bytes leaf;     ///< DER
  Bytes issuing;  ///< DER
  Bytes card;     ///< Envelope
  Bytes proof;    ///< Envelope of DialProof
  friend bool operator==(const Setup&, const Setup&) = default;
};
struct DialProof {
  SetupKind kind = SetupKind::kNone;
  std::string network;
  CircuitId circuit;
  std::uint32_t epoch = 0;
  std::string service;
  std::string ingress;
  std::int64_t time_ms = 0;
  Hash client_hello_hash{};
  std::uint64_t next_expected = 0;
  Hash app_data_hash{};  ///< zero without app_data
  friend bool operator==(const DialProof&, const DialProof&) = default;
};
struct SetupFrame {
  Bytes setup;  ///< Setup; passed on unchanged
  Bytes route;  ///< Envelope of Route; empty on the first hop
  std::uint32_t attempt = 0;
  friend bool operator==(const SetupFrame&, const SetupFrame&) = default;
};
struct Route {
  std::string network;
  CircuitId circuit;
  std::uint32_t epoch = 0;
  std::uint32_t attempt = 0;
  std::string service;
  std::string terminator;
  std::vector<std::string> hops;  ///< ingress first, egress last; 1..8, no repeats
  std::int64_t expiry_ms = 0;
  Hash setup_hash{};
  InstanceId instance{};
  Bytes ingress_leaf;     ///< DER of the ingress router's leaf
  Bytes ingress_issuing;  ///< DER
  friend bool operator==(const Route&, const Route&) = default;
};
struct SetupOkFrame {
  Bytes answer;
  friend bool operator==(const SetupOkFrame&, const SetupOkFrame&) = default;
};
struct HostAnswer {
  CircuitId circuit;
  std::uint32_t epoch = 0;
  std::uint32_t attempt = 0;
  Bytes flight;
  Bytes card;
  std::uint64_t next_expected = 0;
  Bytes app_data;
  friend bool operator==(const HostAnswer&, const HostAnswer&) = default;
};
struct Answer {
  std::string network;
  std::string terminator;
  InstanceId instance{};
  HostAnswer host;
  std::string egress;
  Bytes egress_leaf;
  Bytes egress_issuing;
  friend bool operator==(const Answer&, const Answer&) = default;
};
enum class SetupCode : std::uint8_t {
  kNone = 0,
  kNoService = 1,
  kNoTerminator = 2,
  kBusy = 3,
  kNoPath = 4,
  kTimeout = 5,
  kRefused = 6,
  kInvalid = 7,
  kE2eParameters = 8,
  kNotKnown = 9,
  kShuttingDown = 10,
};
/// "no_service", ...: stable text for logs and APIs.
std::string_view setup_code_name(SetupCode c);
struct SetupErr {
  CircuitId circuit;
  std::uint32_t attempt = 0;
  std::string hop;
  SetupCode code = SetupCode::kNone;
  std::string text;
  friend bool operator==(const SetupErr&, const SetupErr&) = default;
};
enum class ResetCode : std::uint8_t {
  kNone = 0,
  kClosed = 1,
  kLaneLost = 2,
  kPolicy = 3,
  kProtocol = 4,
  kTimeout = 5,
  kShutdown = 6,
  kBudget = 7,
};
std::string_view reset_code_name(ResetCode c);
struct Reset {
  ResetCode code = ResetCode::kNone;
  std::string text;
  friend bool operator==(const Reset&, const Reset&) = default;
};
struct PathDown {
  std::vector<std::uint32_t> labels;  ///< at most 3,000, none 0
  ResetCode code = ResetCode::kNone;
  friend bool operator==(const PathDown&, const PathDown&) = default;
};
inline constexpr std::size_t kMaxPathDownLabels = 3'000;  ///< they fit one frame

struct BindProof {
  std::string network;
  std::string service;
  InstanceId instance{};
  std::string router;
  std::int64_t time_ms = 0;
  friend bool operator==(const BindProof&, const BindProof&) = default;
};

// ---- members of Control
// --------------------------------------------------------------------------------
/// Bit of Hello.features: usage is reported and acknowledged on this control lane.
inline constexpr std::uint64_t kFeatureUsage = 1;
/// Bit of Hello.features, of a router or controller: renewals are carried, or answered.
inline constexpr std::uint64_t kFeatureRenewal = 2;
/// Bit of Hello.features, of a device or router: RenewNow is understood.
inline constexpr std::uint64_t kFeatureRenewNow = 4;
inline constexpr std::size_t kMaxUsageEntries = 4'096;
struct Hello {
  std::uint32_t version_min = 0;
  std::uint32_t version_max = 0;
  std::uint64_t features = 0;
  std::string network;
  ProcessEpoch epoch{};
  std::uint64_t bundle_version = 0;
  std::int64_t time_ms = 0;
  std::string software;
  Bytes card;
  std::uint64_t state_version = 0;
  Hash state_hash{};
  friend bool operator==(const Hello&, const Hello&) = default;
};
struct Refused {
  std::string code;
  std::string text;
  friend bool operator==(const Refused&, const Refused&) = default;
};
struct Bind {
  std::uint64_t request = 0;
  std::string service;
  InstanceId instance{};
  Bytes proof;
  std::uint32_t cost = 0;
  std::uint32_t precedence = 0;
  friend bool operator==(const Bind&, const Bind&) = default;
};
struct BindReply {
  std::uint64_t request = 0;
  SetupCode code = SetupCode::kNone;  ///< kNone = bound
  std::string text;
  std::string terminator;
  friend bool operator==(const BindReply&, const BindReply&) = default;
};
struct Unbind {
  std::string service;
  InstanceId instance{};
  friend bool operator==(const Unbind&, const Unbind&) = default;
};
struct ServiceEntry {
  Bytes record;  ///< Envelope of ServiceRecord
  bool dial = false;
  bool bind = false;
  friend bool operator==(const ServiceEntry&, const ServiceEntry&) = default;
};
struct Services {
  std::vector<ServiceEntry> entries;
  std::vector<SignerChain> signers;  ///< whoever signed records and cards
  friend bool operator==(const Services&, const Services&) = default;
};
struct CardUpdate {
  Bytes card;
  friend bool operator==(const CardUpdate&, const CardUpdate&) = default;
};
struct RouterEntry {
  std::string id;
  std::string name;
  std::vector<std::string> addresses;  ///< host:port
  friend bool operator==(const RouterEntry&, const RouterEntry&) = default;
};
struct Routers {
  std::vector<RouterEntry> entries;
  friend bool operator==(const Routers&, const Routers&) = default;
};
struct CardRequest {
  std::uint64_t request = 0;
  std::string id;
  friend bool operator==(const CardRequest&, const CardRequest&) = default;
};
struct CardReply {
  std::uint64_t request = 0;
  std::string id;
  Bytes card;         ///< empty with an error
  std::string error;  ///< stable code
  friend bool operator==(const CardReply&, const CardReply&) = default;
};
struct Terminator {
  std::string id;
  std::string service;
  std::string device;
  InstanceId instance{};
  std::string router;
  std::int64_t since_ms = 0;
  Bytes proof;    ///< Envelope of BindProof
  Bytes leaf;     ///< DER of the host's leaf: whoever dials through it verifies the proof
  Bytes issuing;  ///< DER
  std::uint32_t cost = 0;
  std::uint32_t precedence = 0;
  friend bool operator==(const Terminator&, const Terminator&) = default;
};
struct Terminators {
  std::vector<Terminator> entries;
  friend bool operator==(const Terminators&, const Terminators&) = default;
};
struct StateAck {
  std::uint64_t version = 0;
  std::uint64_t flows_cut = 0;
  friend bool operator==(const StateAck&, const StateAck&) = default;
};
struct Event {
  std::int64_t time_ms = 0;
  std::string code;
  std::string actor;
  std::string subject;
  std::string text;
  friend bool operator==(const Event&, const Event&) = default;
};
/// Of one device and service on one day; see proto/lane.proto.
struct UsageEntry {
  std::uint32_t day = 0;
  std::string device;
  std::string service;
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  std::uint64_t circuits = 0;
  std::uint64_t open_ms = 0;
  friend bool operator==(const UsageEntry&, const UsageEntry&) = default;
};
struct RouterLive {
  std::int64_t time_ms = 0;
  std::uint64_t lanes = 0;
  std::uint64_t circuits = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  std::uint64_t cpu_us = 0;
  std::uint64_t rss_bytes = 0;
  friend bool operator==(const RouterLive&, const RouterLive&) = default;
};
struct Usage {
  ProcessEpoch epoch{};
  std::uint64_t sequence = 0;
  std::uint64_t interval_ms = 0;
  std::vector<UsageEntry> entries;
  RouterLive live;
  friend bool operator==(const Usage&, const Usage&) = default;
};
struct UsageAck {
  ProcessEpoch epoch{};
  std::uint64_t sequence = 0;
  std::uint64_t period_ms = 0;
  friend bool operator==(const UsageAck&, const UsageAck&) = default;
};
struct Events {
  std::vector<Event> entries;
  friend bool operator==(const Events&, const Events&) = default;
};

// ---- replicated state
// ----------------------------------------------------------------------------------
struct StateUpdate {
  Bytes snapshot_head;         ///< Envelope of SnapshotHead, with `snapshot`
  Bytes snapshot;              ///< Snapshot
  std::vector<Bytes> entries;  ///< LogEntry
  Bytes head;                  ///< Envelope of StateHead
  std::vector<SignerChain> signers;
  friend bool operator==(const StateUpdate&, const StateUpdate&) = default;
};
struct StateHead {
  std::string network;
  std::uint64_t version = 0;
  Hash hash{};
  std::int64_t time_ms = 0;
  friend bool operator==(const StateHead&, const StateHead&) = default;
};
struct SnapshotHead {
  std::string network;
  std::uint64_t version = 0;
  Hash hash{};
  Hash snapshot_hash{};
  std::int64_t time_ms = 0;
  friend bool operator==(const SnapshotHead&, const SnapshotHead&) = default;
};
struct Snapshot {
  std::vector<Bytes> ops;  ///< StateOp
  friend bool operator==(const Snapshot&, const Snapshot&) = default;
};
struct LogEntry {
  std::uint64_t version = 0;
  Bytes op;  ///< StateOp
  friend bool operator==(const LogEntry&, const LogEntry&) = default;
};
enum class Standing : std::uint8_t { kNone = 0, kActive = 1, kSuspended = 2, kRevoked = 3 };
struct IdentityState {
  std::string id;
  Standing standing = Standing::kNone;
  std::uint64_t credential_epoch = 0;
  std::uint64_t attr_epoch = 0;
  std::int64_t at_ms = 0;
  friend bool operator==(const IdentityState&, const IdentityState&) = default;
};
struct RevokedCertificate {
  std::string serial;  ///< lower-case hex
  std::int64_t not_after_ms = 0;
  std::int64_t at_ms = 0;
  bool superseded = false;  ///< by a renewed one: lanes that are up live on
  friend bool operator==(const RevokedCertificate&, const RevokedCertificate&) = default;
};
struct RemoveRouter {
  std::string id;
  friend bool operator==(const RemoveRouter&, const RemoveRouter&) = default;
};
struct PutService {
  Bytes record;  ///< Envelope of ServiceRecord
  friend bool operator==(const PutService&, const PutService&) = default;
};
struct RemoveService {
  std::string id;
  friend bool operator==(const RemoveService&, const RemoveService&) = default;
};
/// Exactly one member; a RouterEntry is "put".
struct StateOp {
  std::variant<RouterEntry, RemoveRouter, PutService, RemoveService, IdentityState,
               RevokedCertificate>
      op;
  friend bool operator==(const StateOp&, const StateOp&) = default;
};

// ---- renewal
// ------------------------------------------------------------------------------------------
inline constexpr std::size_t kMaxCsr = 8'192;
/// Payload of the envelope in Renew, signed by the key of the certificate `serial`.
struct RenewalRequest {
  std::string network;
  std::string id;
  std::string serial;  ///< lower-case hex; with a request: the current one, without: the new one
  Bytes csr;           ///< for the next certificate; empty: `serial` is in use now
  std::int64_t time_ms = 0;  ///< of the lane
  Bytes session_csr{};       ///< for a session certificate beside `serial`; without `csr`
  friend bool operator==(const RenewalRequest&, const RenewalRequest&) = default;
};
enum class SessionUse : std::uint8_t { kUnset = 0, kApi = 1, kDial = 2, kBind = 3 };
/// Payload of the envelope in a token of a foreign end, signed by the network's signer. It names an
/// identity; that somebody is that identity, only a leaf proves.
struct SessionToken {
  std::string network;
  std::string identity;
  std::uint64_t credential_epoch = 0;
  std::string session;  ///< the API session it belongs to
  SessionUse use = SessionUse::kUnset;
  std::string service;  ///< id; of kDial and kBind
  std::int64_t issued_ms = 0;
  std::int64_t not_after_ms = 0;
  friend bool operator==(const SessionToken&, const SessionToken&) = default;
};
/// SDK to router to controller. `id` and `serial` are the router's word: the lane's proven leaf.
struct Renew {
  std::uint64_t request = 0;  ///< random, comes back in the answer
  std::string id;
  std::string serial;
  Bytes envelope;
  friend bool operator==(const Renew&, const Renew&) = default;
};
struct Renewed {
  std::uint64_t request = 0;
  std::string id;
  Bytes leaf;  ///< DER; empty: the use was noted, or an error
  Bytes issuing;
  std::string error;  ///< stable code
  std::uint64_t retry_after_ms = 0;
  friend bool operator==(const Renewed&, const Renewed&) = default;
};
/// Controller to router to SDK: renew before it is due.
struct RenewNow {
  std::string id;
  std::uint64_t within_ms = 0;  ///< at a moment of its own within this
  friend bool operator==(const RenewNow&, const RenewNow&) = default;
};

/// Payload of CONTROL frames: exactly one member.
struct Control {
  std::variant<Hello, Refused, Bind, BindReply, Unbind, Services, CardUpdate, CardRequest,
               Terminators, StateAck, Events, StateUpdate, CardReply, Routers, Usage, UsageAck,
               Renew, Renewed, RenewNow>
      member;
  friend bool operator==(const Control&, const Control&) = default;
};

// ---- coding
// --------------------------------------------------------------------------------------------
Bytes encode(const Envelope& m);
Bytes encode(const RenewalRequest& m);
Bytes encode(const SessionToken& m);
Bytes encode(const Card& m);
Bytes encode(const ServiceRecord& m);
Bytes encode(const Setup& m);
Bytes encode(const DialProof& m);
Bytes encode(const SetupFrame& m);
Bytes encode(const Route& m);
Bytes encode(const SetupOkFrame& m);
Bytes encode(const HostAnswer& m);
Bytes encode(const Answer& m);
Bytes encode(const SetupErr& m);
Bytes encode(const Reset& m);
Bytes encode(const PathDown& m);
Bytes encode(const BindProof& m);
Bytes encode(const Control& m);
Bytes encode(const StateUpdate& m);
Bytes encode(const StateHead& m);
Bytes encode(const SnapshotHead& m);
Bytes encode(const Snapshot& m);
Bytes encode(const LogEntry& m);
Bytes encode(const StateOp& m);

Result<Envelope> decode_envelope(ByteView in);
Result<Card> decode_card(ByteView in);
Result<ServiceRecord> decode_service_record(ByteView in);
Result<Setup> decode_setup(ByteView in);
Result<DialProof> decode_dial_proof(ByteView in);
Result<SetupFrame> decode_setup_frame(ByteView in);
Result<Route> decode_route(ByteView in);
Result<SetupOkFrame> decode_setup_ok_frame(ByteView in);
Result<HostAnswer> decode_host_answer(ByteView in);
Result<Answer> decode_answer(ByteView in);
Result<SetupErr> decode_setup_err(ByteView in);
Result<Reset> decode_reset(ByteView in);
Result<PathDown> decode_path_down(ByteView in);
Result<BindProof> decode_bind_proof(ByteView in);
/// Up to kMaxControlMessage; a shorter cap for a device is the lane's.
Result<Control> decode_control(ByteView in);
Result<StateUpdate> decode_state_update(ByteView in);
Result<StateHead> decode_state_head(ByteView in);
Result<SnapshotHead> decode_snapshot_head(ByteView in);
Result<Snapshot> decode_snapshot(ByteView in);
Result<LogEntry> decode_log_entry(ByteView in);
Result<RenewalRequest> decode_renewal_request(ByteView in);
Result<SessionToken> decode_session_token(ByteView in);
Result<StateOp> decode_state_op(ByteView in);

}  // namespace sally::wire
