// SPDX-License-Identifier: Apache-2.0
#include "controller/network.h"

#include <algorithm>
#include <chrono>

#include "base/fs.h"
#include "base/log.h"
#include "controller/init.h"
#include "pki/publish.h"

namespace sally::controller {
namespace {

constexpr std::size_t kRowsPerRead = 1000;
constexpr std::size_t kMaxAcks = 256;
constexpr std::int64_t kDayMs = 86'400'000;
constexpr std::int64_t kUsageDays = 400;  // kept
// A batch that waited longer than this for us may be counted twice.
constexpr std::int64_t kEpochDays = 60;

Result<std::vector<crypto::Certificate>> read_chain(const std::string& path) {
  TRY_ASSIGN(const std::string text, fs::read_text(path));
  TRY_ASSIGN(auto chain, crypto::Certificate::list_from_pem(text, 4));
  if (chain.size() != 2)
    return fail(Errc::kNoNetwork, path + " must hold leaf and issuing certificate",
                Source::kConfig);
  return chain;
}

}  // namespace

Network::Network(std::string dir, loop::Loop& loop, http::WorkerPool& pool, const Clock& clock,
                 Random& random)
    : dir_(std::move(dir)),
      loop_(loop),
      pool_(pool),
      clock_(clock),
      random_(random),
      keys_(dir_ + "/keys") {
  random_.fill(epoch_);
}

Network::~Network() {
  *alive_ = false;
  flush_sessions();
}

void Network::flush_sessions() {
  if (sessions_ == nullptr) return;
  if (const auto ok = sessions_->flush(*store_, clock_.unix_ms()); !ok)
    log::error("controller.sessions_not_written", {{"why", ok.error().text()}});
}

Result<std::unique_ptr<Network>> Network::open(const std::string& dir, loop::Loop& loop,
                                               http::WorkerPool& pool, const Clock& clock,
                                               Random& random, std::int64_t life_s,
                                               std::int64_t grace_s, std::int64_t session_life_s) {
  if (!fs::exists(dir + "/" + kDatabaseFile))
    return fail(Errc::kNoNetwork, dir + " holds no network; make one with: sally up",
                Source::kConfig);
  std::unique_ptr<Network> n(new Network(dir, loop, pool, clock, random));
  n->life_s_ = life_s;
  n->grace_s_ = grace_s;
  n->session_life_s_ = session_life_s;
  TRY(n->load());
  return n;
}

Status Network::load() {
  TRY_ASSIGN(store_, store::open_sqlite(dir_ + "/" + kDatabaseFile, pki::store_hooks()));
  TRY_ASSIGN(const auto networks, store_->networks());
  if (networks.size() != 1)
    return fail(Errc::kNoNetwork,
                "the store holds " + std::to_string(networks.size()) + " networks",
                Source::kConfig);
  id_ = networks.front();
  log::set_origin("controller", id_.str());
  {
    TRY_ASSIGN(const auto tx, store_->read(id_));
    TRY_ASSIGN(const auto row, tx->network());
    url_ = row.controller_url;
    // A tampered audit is loud, but does not lock the owner out.
    if (const auto ok = tx->verify_chains(); !ok)
      log::error("controller.tampered", {{"where", ok.error().text()}});
    TRY_ASSIGN(authority_, pki::Authority::load(*tx, id_, keys_));
  }
  TRY_ASSIGN(signer_key_, keys_.load("signer"));
  TRY_ASSIGN(auto mac_key, keys_.secret("tokens", random_));
  door_ = std::make_unique<pki::TokenDoor>(authority_, std::move(mac_key));
  TRY_ASSIGN(auto session_key, keys_.secret("sessions", random_));
  sessions_ = std::make_unique<api::Sessions>(id_, std::move(session_key), session_life_s_);
  renewals_ = std::make_unique<pki::RenewalDoor>(authority_, life_s_, grace_s_);
  status_ = std::make_unique<pki::StatusDesk>(authority_, keys_);
  TRY(load_certificates());
  if (const auto ok = upkeep(); !ok) {
    // A full disk is no reason to refuse what is still good; the next hour tries again.
    if (!ok.error().retry()) return fail(ok.error());
    log::error("controller.upkeep_failed", {{"why", ok.error().text()}});
  }
  TRY(make_writer());
  api_ = std::make_unique<api::Api>(api::Deps{
      id_, *store_, authority_, *door_, [this] { return rest(); }, [this] { return signer_key_; },
      [this] {
        const std::scoped_lock lock(mutex_);
        return signer_chain_.front().not_after();
      },
      *this, clock_, random_, url_, random_.hex(8),
      [this] { return metrics_ ? metrics_() : std::string(); }, life_s_, renewals_.get(),
      status_.get(), sessions_.get()});
  open_ = true;
  return {};
}

Status Network::load_certificates() {
  TRY_ASSIGN(const auto rest_chain, read_chain(dir_ + "/" + kRestFile));
  TRY_ASSIGN(const auto rest_key, keys_.load("rest"));
  TRY_ASSIGN(auto signer_chain, read_chain(dir_ + "/" + kSignerFile));
  if (!(rest_key->public_key() == rest_chain[0].public_key()) ||
      !(signer_key_->public_key() == signer_chain[0].public_key()))
    return fail(crypto::Errc::kKeyMismatch, "certificate and key in " + dir_, Source::kConfig);
  auto rest = std::make_shared<const pki::RestIdentity>(
      pki::RestIdentity{rest_chain[0], rest_chain[1], rest_key});
  const std::scoped_lock lock(mutex_);
  rest_ = std::move(rest);
  signer_chain_ = std::move(signer_chain);
  return {};
}

Status Network::make_writer() {
  std::vector<wire::SignerChain> chains;
  {
    const std::scoped_lock lock(mutex_);
    chains.push_back({signer_chain_[0].der(), signer_chain_[1].der()});
  }
  auto writer = std::make_unique<replica::LogWriter>(id_.str(), signer_key_, std::move(chains));
  const std::scoped_lock order(publish_mutex_);
  TRY_ASSIGN(const auto tx, store_->read(id_));
  for (;;) {
    TRY_ASSIGN(const auto rows, tx->log_after(writer->version(), kRowsPerRead));
    if (rows.empty()) break;
    for (const auto& r : rows) TRY(writer->append(r.entry, r.hash));
  }
  published_ = writer->version();
  writer_ = std::move(writer);
  return {};
}

std::shared_ptr<const pki::RestIdentity> Network::rest() const {
  const std::scoped_lock lock(mutex_);
  return rest_;
}

// ---- upkeep

Result<bool> Network::renew(const std::string& file, const std::string& key_name,
                            pki::Profile profile) {
  TRY_ASSIGN(const auto chain, read_chain(dir_ + "/" + file));
  const auto& old = chain[0];
  const std::int64_t now_ms = clock_.unix_ms();
  // One that is not valid yet was made while the clock was wrong.
  if ((old.not_after() - now_ms / 1000) * 3 > old.not_after() - old.not_before() &&
      old.not_before() <= now_ms / 1000)
    return false;
  TRY_ASSIGN(const auto key, keys_.load(key_name));
  TRY_ASSIGN(const auto name,
             crypto::parse_identity_uri(old.uri_sans().empty() ? "" : old.uri_sans().front()));
  TRY_ASSIGN(auto tx, store_->begin(id_, now_ms));
  // The same key: outstanding tokens and signed records stay valid.
  TRY_ASSIGN(const auto issued, authority_->issue(*tx, {name.id, old.dns_sans(), old.ip_sans()},
                                                  key->public_key(), profile, now_ms, random_));
  TRY(tx->audit("system", "certificate.renew", name.id,
                "{\"door\":\"upkeep\",\"serial\":\"" + issued.leaf.serial_hex() + "\",\"key\":\"" +
                    key->public_key().hash_hex() + "\"}"));
  TRY(tx->commit());
  TRY(fs::write_file_atomic(dir_ + "/" + file, as_bytes(issued.chain_pem()), 0600));
  log::info("controller.certificate_renewed",
            {{"profile", pki::profile_name(profile)}, {"serial", issued.leaf.serial_hex()}});
  return true;
}

Status Network::renew_responders() {
  const std::int64_t now_ms = clock_.unix_ms();
  {
    TRY_ASSIGN(auto tx, store_->begin(id_, now_ms));
    TRY_ASSIGN(const bool made, status_->renew(*tx, now_ms, random_));
    if (made) TRY(tx->commit());
  }
  TRY_ASSIGN(const auto tx, store_->read(id_));
  return status_->use(*tx);
}

Status Network::refresh_lists() {
  TRY_ASSIGN(auto tx, store_->read(id_));
  return status_->refresh(std::move(tx), clock_.unix_ms());
}

Status Network::upkeep() {
  // What one of them renewed is put to use even where the other fails.
  const auto rest_renewed = renew(kRestFile, "rest", pki::Profile::kController);
  const auto signer_renewed = renew(kSignerFile, "signer", pki::Profile::kSigner);
  const bool rest_new = rest_renewed.value_or(false);
  const bool signer_new = signer_renewed.value_or(false);
  if (rest_new || signer_new) TRY(load_certificates());
  {
    const std::int64_t now_ms = clock_.unix_ms();
    TRY_ASSIGN(auto tx, store_->begin(id_, now_ms));
    TRY_ASSIGN(const auto n, pki::refresh_services(*tx, id_, *signer_key_, now_ms));
    if (n > 0) {
      TRY(tx->audit("system", "service.refresh", "", "{\"records\":" + std::to_string(n) + "}"));
      TRY(tx->commit());
    }
  }
  {
    const std::int64_t now_ms = clock_.unix_ms();
    TRY_ASSIGN(auto tx, store_->begin(id_, now_ms));
    const std::int64_t first = now_ms / kDayMs - kUsageDays;
    TRY(tx->expire_usage(static_cast<std::uint32_t>(std::max<std::int64_t>(0, first)),
                         now_ms - kEpochDays * kDayMs));
    TRY(tx->commit());
  }
  TRY(end_unproven());
  TRY(prune_certificates());
  TRY(warn_of_ends());
  TRY(renew_responders());
  TRY(refresh_lists());
  if (!open_)
    return rest_renewed && signer_renewed
               ? Status{}
               : Status(fail(rest_renewed ? signer_renewed.error() : rest_renewed.error()));
  changed();
  if (signer_new)
    on_loop([this] {
      if (const auto ok = make_writer(); !ok)
        log::error("controller.log_writer_failed", {{"why", ok.error().text()}});
      push_all();
    });
  if (rest_new)
    on_loop([this] {
      if (on_certificates_) on_certificates_();
    });
  if (!rest_renewed) return fail(rest_renewed.error());
  if (!signer_renewed) return fail(signer_renewed.error());
  return {};
}

// ---- Live

api::Live::Router Network::router(const std::string& id) const {
  const std::scoped_lock lock(mutex_);
  const auto it = routers_.find(id);
  if (it == routers_.end()) return {};
  const LiveRouter& r = it->second;
  return {r.lane != 0, r.acks.empty() ? 0 : r.acks.back().version, r.seen_ms, r.hosts.size()};
}

std::vector<api::Live::Host> Network::hosts() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Host> out;
  for (const auto& [id, r] : routers_)
    if (r.lane != 0) out.insert(out.end(), r.hosts.begin(), r.hosts.end());
  return out;
}

void Network::changed() {
  const std::scoped_lock order(publish_mutex_);
  const auto tx = store_->read(id_);
  if (!tx) return log::error("controller.change_log_failed", {{"why", tx.error().text()}});
  for (;;) {
    auto rows = (*tx)->log_after(published_, kRowsPerRead);
    if (!rows) return log::error("controller.change_log_failed", {{"why", rows.error().text()}});
    if (rows->empty()) return;
    const std::uint64_t last = rows->back().version;
    // Rows that did not get through are read again at the next change.
    if (!on_loop([this, list = std::move(*rows)]() mutable { take_rows(std::move(list)); })) return;
    published_ = last;
  }
}

api::Live::Enforced Network::await(std::uint64_t version, std::int64_t timeout_ms) {
  const std::int64_t start = clock_.mono_us();
  std::unique_lock lock(mutex_);
  Enforced e;
  const auto all = [&] {
    e = {};
    for (const auto& [id, r] : routers_) {
      if (r.lane == 0) continue;
      ++e.of;
      const auto at = std::find_if(r.acks.begin(), r.acks.end(),
                                   [&](const Ack& a) { return a.version >= version; });
      if (at == r.acks.end()) continue;
      ++e.routers;
      // Flows are counted since the router started: what this version cut is the difference to the
      // one before.
      if (at != r.acks.begin() && at->flows >= std::prev(at)->flows)
        e.flows_cut += at->flows - std::prev(at)->flows;
    }
    return e.routers == e.of;
  };
  acked_.wait_for(lock, std::chrono::milliseconds(timeout_ms), all);
  e.took_ms = (clock_.mono_us() - start) / 1000;
  return e;
}

void Network::on_ack(const std::string& id, const wire::StateAck& ack) {
  {
    const std::scoped_lock lock(mutex_);
    auto& r = routers_[id];
    r.seen_ms = clock_.unix_ms();
    if (!r.acks.empty() && r.acks.back().version == ack.version) {
      r.acks.back().flows = ack.flows_cut;
    } else {
      r.acks.push_back({ack.version, ack.flows_cut});
      if (r.acks.size() > kMaxAcks) r.acks.pop_front();
    }
  }
  acked_.notify_all();
}

void Network::on_terminators(const std::string& id, const wire::Terminators& list) {
  const std::scoped_lock lock(mutex_);
  auto& r = routers_[id];
  r.seen_ms = clock_.unix_ms();
  r.hosts.clear();
  for (const auto& t : list.entries) r.hosts.push_back({t.service, t.device, id, t.since_ms});
}

bool Network::on_loop(std::move_only_function<void()> fn) {
  const bool posted = loop_.post([alive = alive_, f = std::move(fn)]() mutable {
    if (*alive) f();
  });
  if (!posted) log::error("controller.loop_overloaded", {});
  return posted;
}

}  // namespace sally::controller
