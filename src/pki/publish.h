// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "crypto/key.h"
#include "store/store.h"

namespace sally::pki {

/// What routers must learn of a change, appended to the change log in the transaction of the change
/// itself.

/// How long a signed service record is believed, and how long before its end it is signed again.
inline constexpr std::int64_t kRecordLifeMs = 72LL * 3600 * 1000;
inline constexpr std::int64_t kRecordRefreshMs = 48LL * 3600 * 1000;
inline constexpr std::int64_t kCardLifeMs = 24LL * 3600 * 1000;

/// Hash and entry encoding for store::open_sqlite.
store::Hooks store_hooks();

Status publish_identity(store::Transaction& tx, const store::Identity& identity,
                        std::int64_t now_ms);
/// Of the same identity, issued before the certificate of that serial, neither revoked nor over.
Result<std::vector<store::CertificateRow>> older_certificates(const store::Transaction& tx,
                                                              std::string_view identity,
                                                              std::string_view serial,
                                                              std::int64_t now_ms);
/// Signs the record from the service's row and grants, stores it in the row and appends it.
Status publish_service(store::Transaction& tx, const NetworkId& network, store::Service service,
                       const crypto::Signer& signer, std::int64_t now_ms);
Status publish_service_removed(store::Transaction& tx, std::string_view id);
Status publish_router(store::Transaction& tx, const store::Identity& router,
                      const store::RouterInfo& info);
Status publish_router_removed(store::Transaction& tx, std::string_view id);

/// Signs every record again whose end is nearer than kRecordRefreshMs; how many. Audited by the
/// caller.
Result<std::size_t> refresh_services(store::Transaction& tx, const NetworkId& network,
                                     const crypto::Signer& signer, std::int64_t now_ms);

/// Envelope of the card of an active identity; kIdentityInactive otherwise.
Result<Bytes> make_card(const NetworkId& network, const store::Identity& identity,
                        const crypto::Signer& signer, std::int64_t now_ms);

/// The state as a list of encoded StateOps, equal to what the log up to its head adds up to.
Result<std::vector<Bytes>> snapshot_ops(const store::Transaction& tx, std::int64_t now_ms);

}  // namespace sally::pki
