// SPDX-License-Identifier: Apache-2.0
#include "store/model.h"

#include "store/errc.h"

namespace sally::store {

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kDevice:
      return "device";
    case Kind::kRouter:
      return "router";
    case Kind::kController:
      return "controller";
    case Kind::kAdmin:
      return "admin";
    case Kind::kSigner:
      return "signer";
  }
  return "unknown";
}

std::string_view standing_name(Standing standing) {
  switch (standing) {
    case Standing::kActive:
      return "active";
    case Standing::kSuspended:
      return "suspended";
    case Standing::kRevoked:
      return "revoked";
  }
  return "unknown";
}

std::string_view reason_name(Reason reason) {
  switch (reason) {
    case Reason::kUnspecified:
      return "unspecified";
    case Reason::kKeyCompromise:
      return "key-compromise";
    case Reason::kCaCompromise:
      return "ca-compromise";
    case Reason::kAffiliationChanged:
      return "affiliation-changed";
    case Reason::kSuperseded:
      return "superseded";
    case Reason::kCessationOfOperation:
      return "cessation-of-operation";
    case Reason::kCertificateHold:
      return "certificate-hold";
    case Reason::kPrivilegeWithdrawn:
      return "privilege-withdrawn";
  }
  return "unspecified";
}

std::string_view e2e_name(E2e e2e) {
  switch (e2e) {
    case E2e::kTls:
      return "tls";
    case E2e::kCompatible:
      return "compatible";
    case E2e::kNone:
      return "none";
  }
  return "unknown";
}

std::string_view error_name(Errc e) {
  switch (e) {
    case Errc::kNotFound:
      return "store.not_found";
    case Errc::kConflict:
      return "store.conflict";
    case Errc::kNoAudit:
      return "store.no_audit";
    case Errc::kReadOnly:
      return "store.read_only";
    case Errc::kAuditTampered:
      return "store.audit_tampered";
    case Errc::kLogTampered:
      return "store.log_tampered";
    case Errc::kNewerSchema:
      return "store.newer_schema";
    case Errc::kCorrupt:
      return "store.corrupt";
    case Errc::kFull:
      return "store.full";
    case Errc::kDiskReadOnly:
      return "store.disk_read_only";
    case Errc::kBadFilter:
      return "store.bad_filter";
    case Errc::kBadSort:
      return "store.bad_sort";
    case Errc::kIo:
      return "store.io";
    case Errc::kBusy:
      return "store.busy";
    case Errc::kInternal:
      return "store.internal";
  }
  return "store.unknown";
}

}  // namespace sally::store
