// SPDX-License-Identifier: Apache-2.0
#include "replica/replica.h"

#include <algorithm>

#include "base/fs.h"
#include "crypto/hash.h"
#include "wire/frame.h"

namespace sally::replica {

namespace {

constexpr std::int64_t kHeadSaveMs = 300'000;
constexpr std::size_t kMaxFile = wire::kMaxControlMessage;

template <typename T>
const T* find_in(const Tables::Map<T>& table, std::string_view id) {
  const auto it = table.find(id);
  return it == table.end() ? nullptr : &it->second;
}

/// Ids whose rows differ.
template <typename T, typename Same>
void compare(const Tables::Map<T>& a, const Tables::Map<T>& b, std::set<std::string>& out,
             Same same) {
  for (const auto& [id, row] : a) {
    const T* other = find_in(b, id);
    if (other == nullptr || !same(row, *other)) out.insert(id);
  }
  for (const auto& [id, row] : b) {
    if (!a.contains(id)) out.insert(id);
  }
}

void note(const wire::StateOp& op, Diff& diff) {
  if (const auto* r = std::get_if<wire::RouterEntry>(&op.op)) diff.routers.insert(r->id);
  if (const auto* r = std::get_if<wire::RemoveRouter>(&op.op)) diff.routers.insert(r->id);
  if (const auto* s = std::get_if<wire::RemoveService>(&op.op)) diff.services.insert(s->id);
  if (const auto* i = std::get_if<wire::IdentityState>(&op.op)) diff.identities.insert(i->id);
  if (const auto* c = std::get_if<wire::RevokedCertificate>(&op.op)) diff.serials.insert(c->serial);
  if (const auto* p = std::get_if<wire::PutService>(&op.op)) {
    // It was decoded once by Tables::apply, so both succeed.
    if (const auto e = wire::decode_envelope(p->record)) {
      if (const auto r = wire::decode_service_record(e->payload)) diff.services.insert(r->id);
    }
  }
}

}  // namespace

// ---- State
// ---------------------------------------------------------------------------------------------
const ServiceView* State::service(std::string_view id, std::int64_t now_ms) const {
  const auto* s = find_in(tables_.services(), id);
  return s != nullptr && s->verified && s->record.not_after_ms > now_ms ? s : nullptr;
}

const ServiceView* State::service_named(std::string_view name, std::int64_t now_ms) const {
  for (const auto& [id, s] : tables_.services()) {
    if (s.record.name == name) return service(id, now_ms);
  }
  return nullptr;
}

const wire::RouterEntry* State::router(std::string_view id) const {
  return find_in(tables_.routers(), id);
}

const wire::IdentityState* State::identity(std::string_view id) const {
  return tables_.identities().find(id);
}

bool State::serial_revoked(std::string_view serial_hex) const {
  return tables_.revoked().contains(serial_hex);
}

bool State::serial_cut(std::string_view serial_hex) const {
  const auto* row = tables_.revoked().find(serial_hex);
  return row != nullptr && !row->superseded;
}

bool State::identity_alive(std::string_view id, std::uint64_t credential_epoch) const {
  const auto* i = identity(id);
  if (i == nullptr) return !id.empty();
  return i->standing == wire::Standing::kActive && credential_epoch >= i->credential_epoch;
}

// ---- Replica
// -------------------------------------------------------------------------------------------
Replica::Replica(trust::Anchors anchors) : anchors_(std::move(anchors)) {
  reset();
}

void Replica::reset() {
  auto s = std::make_shared<State>();
  s->network_ = anchors_.network;
  state_ = std::move(s);
  material_ = {};
  behind_.clear();
  unsaved_.clear();
  unsaved_head_.clear();
  dirty_ = true;
}

Result<Diff> Replica::apply(ByteView update, std::int64_t now_ms) {
  TRY_ASSIGN(const auto decoded, wire::decode_state_update(update));
  return apply(decoded, now_ms);
}

Status Replica::take_snapshot(const wire::StateUpdate& update, const trust::Context& ctx,
                              State& next) const {
  if (update.snapshot_head.empty()) {
    if (!update.snapshot.empty()) return fail(Errc::kSnapshot, "snapshot without its signed head");
    return {};
  }
  TRY_ASSIGN(const auto head, trust::verify_snapshot_head(update.snapshot_head, ctx));
  if (update.snapshot.empty() && head->snapshot_hash != crypto::sha256(ByteView{})) {
    // The head alone: the writer lets us forget the entries before it, and we see whether we hold
    // the same.
    if (head->version != next.version_ || head->hash != next.hash_)
      return fail(Errc::kGap, "snapshot head of another version");
    if (update.snapshot_head == material_.snapshot_head) return {};
    next.tables_.forget_ended(head->time_ms);
    if (crypto::sha256(next.tables_.snapshot()) != head->snapshot_hash)
      return fail(Errc::kDiverged, "version " + std::to_string(head->version));
    return {};
  }
  if (head->snapshot_hash != crypto::sha256(update.snapshot)) return fail(Errc::kSnapshot, "hash");
  if (head->version < state_->version_)
    return fail(Errc::kRollback, "snapshot of version " + std::to_string(head->version));
  if (head->version == state_->version_ && head->hash != state_->hash_)
    return fail(Errc::kFork, "snapshot");
  TRY_ASSIGN(const auto snapshot, wire::decode_snapshot(update.snapshot));
  next.tables_ = Tables();
  for (const auto& bytes : snapshot.ops) {
    TRY_ASSIGN(const auto op, wire::decode_state_op(bytes));
    TRY(next.tables_.apply(op, anchors_.network));
  }
  next.version_ = head->version;
  next.hash_ = head->hash;
  return {};
}

Status Replica::take_entries(const wire::StateUpdate& update, State& next, Diff& diff) const {
  for (const auto& bytes : update.entries) {
    TRY_ASSIGN(const auto entry, wire::decode_log_entry(bytes));
    if (entry.version <= next.version_)
      continue;  // sent twice; what we hold is checked against the head below
    if (entry.version != next.version_ + 1) {
      return fail(Errc::kGap, "entry " + std::to_string(entry.version) + " after " +
                                  std::to_string(next.version_));
    }
    TRY_ASSIGN(const auto op, wire::decode_state_op(entry.op));
    TRY(next.tables_.apply(op, anchors_.network));
    note(op, diff);
    next.hash_ = chain_hash(next.hash_, bytes);
    next.version_ = entry.version;
  }
  return {};
}

Result<Diff> Replica::apply(const wire::StateUpdate& update, std::int64_t now_ms) {
  if (update.head.empty()) return fail(Errc::kNoHead, anchors_.network);
  auto next = std::make_shared<State>(*state_);
  // A chain that is not (or no longer) valid is no reason to refuse: what it signed is refused
  // below.
  for (const auto& chain : update.signers) (void)next->signers_.add(chain, anchors_, now_ms / 1000);
  next->signers_.remove_revoked(*state_);
  const trust::Context ctx{anchors_, next->signers_, nullptr, now_ms};
  TRY_ASSIGN(const auto head, trust::verify_state_head(update.head, ctx));

  Diff diff;
  diff.from = state_->version_;
  TRY(take_snapshot(update, ctx, *next));
  const bool replaced = !update.snapshot.empty() || next->version_ != state_->version_;
  TRY(take_entries(update, *next, diff));

  if (head->version < state_->version_)
    return fail(Errc::kRollback, "head of version " + std::to_string(head->version));
  if (head->version > next->version_)
    return fail(Errc::kGap, "head of version " + std::to_string(head->version));
  if (head->version < next->version_) return fail(Errc::kHash, "entries past the head");
  if (head->hash != next->hash_)
    return fail(head->version == state_->version_ ? Errc::kFork : Errc::kHash, "head");
  // A writer whose clock was set back still revokes: what is new is taken, but nothing gets
  // younger.
  diff.older_head = head->time_ms < state_->head_time_ms_;
  if (diff.older_head && head->version == state_->version_) {
    diff.to = diff.from;
    return diff;
  }
  next->head_time_ms_ = std::max(head->time_ms, state_->head_time_ms_);

  next->signers_.remove_revoked(*next);
  diff.unverified_services =
      next->tables_.verify_services({anchors_, next->signers_, nullptr, now_ms});
  diff.to = next->version_;
  diff.whole = replaced || diff.from == 0;
  if (replaced) {
    diff.services.clear();
    diff.identities.clear();
    diff.routers.clear();
    diff.serials.clear();
    const auto equal = [](const auto& a, const auto& b) { return a == b; };
    compare(state_->tables_.routers(), next->tables_.routers(), diff.routers, equal);
    const auto note_in = [](std::set<std::string>& out) {
      return [&out](const std::string& id) { out.insert(id); };
    };
    ShardedMap<wire::IdentityState>::for_each_difference(
        state_->tables_.identities(), next->tables_.identities(), note_in(diff.identities));
    ShardedMap<wire::RevokedCertificate>::for_each_difference(
        state_->tables_.revoked(), next->tables_.revoked(), note_in(diff.serials));
    compare(state_->tables_.services(), next->tables_.services(), diff.services,
            [](const auto& a, const auto& b) {
              return a.envelope == b.envelope && a.verified == b.verified;
            });
  }
  const auto before = state_->version_;
  state_ = std::move(next);
  keep(update, before);
  return diff;
}

namespace {

// The file: the magic, then frames of length (4 bytes), SHA-256 and that many bytes, each an
// encoded StateUpdate: the first one leads from nothing to a state, the others on from there. The
// hash tells damage from forgery; belief comes from the signatures. The first format was a magic,
// a hash, one update.
constexpr std::string_view kMagic = "sally-replica-2\n";
constexpr std::string_view kMagic1 = "sally-replica-1\n";
constexpr std::size_t kFrameHead = 4 + 32;
constexpr std::size_t kLeastBehind = std::size_t{256} << 10U;

void append_frame(Bytes& out, ByteView body) {
  put_big(out, body.size(), 4);
  append(out, crypto::sha256(body));
  append(out, body);
}

// The time in the head; 0 where it cannot be read. apply() verifies what it belongs to.
std::int64_t said_at(const wire::StateUpdate& update) {
  const auto envelope = wire::decode_envelope(update.head);
  if (!envelope) return 0;
  const auto head = wire::decode_state_head(envelope->payload);
  return head ? head->time_ms : 0;
}

}  // namespace

void Replica::keep(const wire::StateUpdate& update, std::uint64_t before) {
  dirty_ = true;
  auto chains = state_->signers().chains();
  const bool same_signers = chains == material_.signers;
  if (!update.snapshot.empty()) {
    material_ = update;
    behind_.clear();
  } else {
    if (!update.snapshot_head.empty() && update.snapshot_head != material_.snapshot_head &&
        update.entries.empty()) {
      material_.snapshot_head = update.snapshot_head;
      material_.snapshot = state_->tables_.snapshot();
      material_.entries.clear();
      behind_.clear();
    }
    for (const auto& bytes : update.entries) {
      const auto entry = wire::decode_log_entry(bytes);
      if (entry && entry->version > before) material_.entries.push_back(bytes);
    }
    material_.head = update.head;
  }
  material_.signers = std::move(chains);
  unsaved_head_.clear();
  if (behind_.empty()) {
    unsaved_.clear();
    return;
  }
  wire::StateUpdate news{.entries = update.entries, .head = update.head};
  if (!same_signers) news.signers = material_.signers;
  append_frame(news.entries.empty() && same_signers ? unsaved_head_ : unsaved_, wire::encode(news));
}

// ---- disk
// ----------------------------------------------------------------------------------------------
bool Replica::save_due(std::int64_t now_ms) const {
  if (!dirty_ || state_->version_ == 0) return false;
  return state_->version_ != saved_version_ || now_ms - saved_at_ms_ >= kHeadSaveMs;
}

Status Replica::save(const std::string& path, std::int64_t now_ms) {
  Bytes news = unsaved_;
  append(news, unsaved_head_);
  const bool behind = behind_ == path && !news.empty() &&
                      file_behind_ + news.size() <= std::max(kLeastBehind, file_whole_ / 2);
  if (behind && fs::append_file(path, news)) {
    file_behind_ += news.size();
  } else {
    behind_.clear();  // until this has worked
    const Bytes body = wire::encode(material_);
    if (body.size() > kMaxFile)
      return fail(Errc::kTooLarge, std::to_string(body.size()), Source::kLocal);
    Bytes file = to_bytes(kMagic);
    append_frame(file, body);
    TRY(fs::write_file_atomic(path, file, 0600));
    behind_ = path;
    file_whole_ = file.size();
    file_behind_ = 0;
  }
  unsaved_.clear();
  unsaved_head_.clear();
  saved_version_ = state_->version_;
  saved_at_ms_ = now_ms;
  dirty_ = false;
  return {};
}

Status Replica::load(const std::string& path, std::int64_t now_ms) {
  reset();
  TRY_ASSIGN(const auto file, fs::read_file(path, 2 * kMaxFile));
  if (auto s = load_file(file, path, now_ms); !s) {
    reset();
    return s;
  }
  unsaved_.clear();
  unsaved_head_.clear();
  saved_version_ = state_->version_;
  saved_at_ms_ = now_ms;
  dirty_ = false;
  return {};
}

Status Replica::load_file(ByteView file, const std::string& path, std::int64_t now_ms) {
  const auto damaged = [&](const char* what) {
    return fail(Errc::kDamaged, path + ": " + what, Source::kLocal);
  };
  Reader r(file);
  const auto magic = as_text(r.take(kMagic.size()));
  const bool one = r.ok() && magic == kMagic1;
  if (!r.ok() || (magic != kMagic && !one)) return damaged("not a replica file");
  bool first = true;
  bool cut = false;
  while (first || r.left() != 0) {
    cut = !first && r.left() < kFrameHead;
    if (cut) break;
    const std::size_t size = one ? r.left() - std::min<std::size_t>(r.left(), 32) : r.big(4);
    const auto hash = r.take(32);
    cut = !first && r.left() < size;
    if (cut) break;
    const auto body = r.take(size);
    if (!r.ok() || !equal_constant_time(hash, crypto::sha256(body))) return damaged("checksum");
    // It was believed once: that the clock is behind it now is the clock's fault.
    TRY_ASSIGN(const auto update, wire::decode_state_update(body));
    if (auto taken = apply(update, std::max(now_ms, said_at(update))); !taken)
      return std::unexpected(std::move(taken.error()).at(path));
    if (first) file_whole_ = file.size() - r.left();
    first = false;
  }
  // What was cut off would stand in the way of what comes behind it.
  if (!one && !cut) behind_ = path;
  file_behind_ = file.size() - file_whole_;
  return {};
}

}  // namespace sally::replica
