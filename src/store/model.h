// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/audit_chain.h"
#include "base/bytes.h"

namespace sally::store {

/// Rows as values. Times are Unix milliseconds unless a name says seconds; 0 = never.

enum class Kind : std::uint8_t { kDevice = 1, kRouter, kController, kAdmin, kSigner };
/// "device", "router", ... as in identity URIs.
std::string_view kind_name(Kind kind);

/// The numbers of proto Standing.
enum class Standing : std::uint8_t { kActive = 1, kSuspended = 2, kRevoked = 3 };
std::string_view standing_name(Standing standing);

/// Why a certificate died early: the numbers of RFC 5280 section 5.3.1.
enum class Reason : std::uint8_t {
  kUnspecified = 0,
  kKeyCompromise = 1,
  kCaCompromise = 2,
  kAffiliationChanged = 3,
  kSuperseded = 4,
  kCessationOfOperation = 5,
  kCertificateHold = 6,  ///< its identity is suspended
  kPrivilegeWithdrawn = 9,
};
/// "key-compromise", ...
std::string_view reason_name(Reason reason);

struct Network {
  std::string id;              ///< trust domain
  std::string name;            ///< for people
  std::string controller_url;  ///< https://host:port, the issuer of enrolment tokens
  std::int64_t created_ms = 0;
};

/// A CA of the network. The key lies in a file of mode 0600 that `key_ref` names; it is never in
/// the database.
struct Authority {
  std::string name;  ///< "root", "devices-1", "infrastructure-1"
  std::string purpose;
  std::uint32_t generation = 1;
  Bytes certificate;  ///< DER
  std::string key_ref;
  std::int64_t created_ms = 0;
  std::int64_t revoked_ms = 0;
  Reason reason = Reason::kUnspecified;
};

/// Anything with a certificate. A removed identity stays as a tombstone: its id is never used
/// again, its name may be.
struct Identity {
  std::string id;
  std::string name;
  Kind kind = Kind::kDevice;
  std::vector<std::string> tags;  ///< without '#', sorted
  Standing standing = Standing::kActive;
  std::uint64_t credential_epoch = 0;
  std::uint64_t attr_epoch = 0;
  std::int64_t created_ms = 0;
  std::int64_t changed_ms = 0;
  std::int64_t removed_ms = 0;
  std::string batch;  ///< those that were made together, or empty
};

struct CertificateRow {
  std::string serial;  ///< lower-case hex
  std::string identity;
  std::string profile;
  std::string key_hash;  ///< SHA-256 of the SubjectPublicKeyInfo, hex
  std::int64_t not_before_s = 0;
  std::int64_t not_after_s = 0;
  std::int64_t issued_ms = 0;
  std::int64_t revoked_ms = 0;
  Bytes der;
  std::int64_t used_ms = 0;  ///< a renewed one: first proven use; 0 before
  bool superseded = false;   ///< revoked by the use of a renewed one
  std::string request;       ///< a renewed one: SHA-256 of the request, hex; unique
  std::string issuer;        ///< name of its Authority
  Reason reason = Reason::kUnspecified;
  bool told =
      false;  ///< its revocation is in the change log, not merely that of its identity or CA
};

/// One that outsiders must hear of.
struct RevokedRow {
  std::string serial;
  std::int64_t at_ms = 0;
  Reason reason = Reason::kUnspecified;
};

struct CertificateQuery {
  std::string identity;       ///< id, or empty for all
  std::int64_t after_s = 0;   ///< only those that end after it and are not revoked; 0 = all
  std::int64_t before_s = 0;  ///< only those that end before it; 0 = all
};

/// An identity whose last certificate ends.
struct Expiry {
  Kind kind = Kind::kDevice;
  std::string id;
  std::string name;
  std::int64_t not_after_s = 0;
};

/// A one-time token. Only an HMAC of its id is kept.
struct Enrollment {
  std::string id;  ///< public handle
  Bytes token_mac;
  std::string identity;
  Kind kind = Kind::kDevice;
  std::int64_t created_ms = 0;
  std::int64_t expires_ms = 0;
  std::int64_t used_ms = 0;
  std::int64_t revoked_ms = 0;
};

/// Somebody foreign is logged in. Of the token only an HMAC is kept.
struct ApiSession {
  std::string id;
  Bytes token_mac;
  std::string identity;
  std::uint64_t credential_epoch = 0;     ///< the identity's at login: a later one ends the session
  std::vector<std::string> config_types;  ///< asked for at login
  std::string address;                    ///< from where, for people
  std::int64_t created_ms = 0;
  std::int64_t active_ms = 0;  ///< last request, as far as it was written
};

/// The numbers of proto E2e.
enum class E2e : std::uint8_t { kTls = 1, kCompatible = 2, kNone = 3 };
std::string_view e2e_name(E2e e2e);

struct Service {
  std::string id;
  std::string name;
  E2e e2e = E2e::kTls;
  std::string host_config;       ///< host.v1 JSON or empty
  std::string intercept_config;  ///< intercept.v1 JSON or empty
  std::uint64_t version = 0;     ///< change-log version of the last signed record
  std::int64_t created_ms = 0;
  std::int64_t record_until_ms = 0;  ///< end of the last signed record
  Bytes record;                      ///< Envelope of the last ServiceRecord
};

enum class GrantKind : std::uint8_t { kDial = 1, kBind = 2 };
struct Grant {
  std::string id;
  std::string service;
  GrantKind kind = GrantKind::kDial;
  std::string selector;  ///< "#tag", "@id", "*"
  std::int64_t created_ms = 0;
};

/// A foreign end means to use a service; one for each API session, service and kind.
struct ServiceSession {
  std::string id;
  std::string api_session;
  std::string service;
  GrantKind kind = GrantKind::kDial;
  std::int64_t created_ms = 0;
};

/// What a router has besides its identity; alternative names come from here, never from a request.
struct RouterInfo {
  std::string id;
  std::vector<std::string> addresses;  ///< host:port, as devices dial it
  std::vector<std::string> dns;
  std::vector<std::string> ips;
};

using Hash = std::array<std::uint8_t, 32>;

/// One entry of the replicated change log.
struct LogRow {
  std::uint64_t version = 0;
  Bytes entry;  ///< LogEntry
  Hash hash{};
};
struct LogHead {
  std::uint64_t version = 0;
  Hash hash{};
  std::int64_t at_ms = 0;  ///< when the last entry was written
};

struct AuditRow : AuditText {
  Hash hash{};
};

/// Where the audit begins: what came before was pruned. A row "audit.prune" in the chain says the
/// same.
struct AuditBase {
  std::uint64_t seq = 0;  ///< of the last row that is gone
  Hash hash{};
};

/// What a device's circuits to a service carried on one day.
struct Usage {
  std::uint32_t day = 0;  ///< since 1970-01-01 UTC; 0 in a sum over several days
  std::string device;     ///< empty: those beyond a router's table
  std::string service;
  std::uint64_t sent = 0;      ///< bytes from the device
  std::uint64_t received = 0;  ///< bytes to it
  std::uint64_t circuits = 0;  ///< opened
  std::uint64_t open_ms = 0;   ///< time they were open, summed
};
struct UsageQuery {
  std::string device;   ///< id, or empty for all
  std::string service;  ///< the same
  std::uint32_t from = 0;
  std::uint32_t to = 0;  ///< this day included
  bool by_day = false;
};

/// Counts for who watches the controller.
struct Figures {
  struct State {
    Kind kind = Kind::kDevice;
    std::uint64_t active = 0;  ///< with a certificate that has not ended
    std::uint64_t expired = 0;
    std::uint64_t waiting = 0;  ///< never enrolled
    std::uint64_t suspended = 0;
    std::uint64_t revoked = 0;
  };
  std::vector<State> identities;  ///< of every kind there is
  /// Last certificates of active identities that end within 1, 7, 30, 90 days, or later; each
  /// counted once. The ended ones are `expired` above.
  std::array<std::uint64_t, 5> ending{};
  /// Active identities whose last certificate ends soon, though it should have been renewed or
  /// nobody renews it: already over, within 7, 30, 90 days; each counted once.
  std::array<std::uint64_t, 4> due{};
  std::uint64_t services = 0;
  std::uint64_t audit_seq = 0;
  std::uint64_t log_version = 0;
  std::uint64_t database_bytes = 0;
};

struct Page {
  std::size_t limit = 100;
  std::size_t offset = 0;
};

}  // namespace sally::store
