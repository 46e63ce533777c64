// SPDX-License-Identifier: Apache-2.0
// What was done to the network: looked at, taken away, checked there and elsewhere.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <memory>

#include "base/audit_chain.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/errors.h"
#include "cli/fleet.h"
#include "crypto/hash.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

constexpr std::size_t kPage = 1'000;
constexpr std::size_t kMaxLine = 1 << 20;
constexpr std::int64_t kDayMs = 86'400'000;

std::optional<std::uint64_t> number_of(const json::object& o, std::string_view name) {
  const auto* v = o.if_contains({name.data(), name.size()});
  if (v == nullptr) return std::nullopt;
  boost::system::error_code ec;
  const auto n = v->to_number<std::uint64_t>(ec);
  return ec ? std::nullopt : std::optional(n);
}

/// Walks lines of an export. Total: whatever a file says, an error names the line or the row.
class Checker {
 public:
  Status take(const std::string& line) {
    ++line_;
    if (line.size() > kMaxLine) return bad("is longer than any of ours");
    boost::system::error_code ec;
    const json::value v = json::parse(line, ec);
    if (ec || !v.is_object()) return bad("is no JSON object");
    return line_ == 1 ? head(v.get_object()) : row(v.get_object());
  }
  [[nodiscard]] json::object facts() const {
    return {{"ok", true},      {"rows", rows_}, {"network", network_},
            {"after", after_}, {"seq", seq_},   {"head", to_hex(hash_)}};
  }
  [[nodiscard]] bool begun() const { return line_ > 0; }

 private:
  [[nodiscard]] Status bad(const std::string& what) const {
    return fail(Errc::kVerify, "line " + std::to_string(line_) + " " + what);
  }
  [[nodiscard]] static std::optional<Bytes> hash_at(const json::object& o) {
    auto hash = from_hex(text_of(o, "hash"));
    return hash && hash->size() == 32 ? hash : std::nullopt;
  }
  Status head(const json::object& o) {
    const auto after = number_of(o, "after");
    const auto hash = hash_at(o);
    network_ = text_of(o, "network");
    if (text_of(o, "audit") != "sallyport" || !after || !hash || network_.empty())
      return bad("does not begin an export");
    seq_ = after_ = *after;
    hash_ = *hash;
    return {};
  }
  Status row(const json::object& o) {
    const auto seq = number_of(o, "seq");
    const auto at = number_of(o, "at_ms");
    const auto hash = hash_at(o);
    if (!seq || !at || !hash) return bad("is no audit row");
    const auto named = [&](std::uint64_t n, const char* what) {
      return fail(Errc::kVerify, "audit row " + std::to_string(n) + what);
    };
    if (*seq != ++seq_) return named(seq_, " is missing");
    const AuditText text{.seq = *seq,
                         .at_ms = static_cast<std::int64_t>(*at),
                         .actor = text_of(o, "actor"),
                         .action = text_of(o, "action"),
                         .subject = text_of(o, "subject"),
                         .detail = text_of(o, "detail")};
    const auto is = crypto::sha256(audit_input(hash_, network_, text));
    if (!std::equal(is.begin(), is.end(), hash->begin(), hash->end()))
      return named(seq_, " was altered");
    hash_ = *hash;
    ++rows_;
    return {};
  }

  std::size_t line_ = 0;
  std::uint64_t rows_ = 0;
  std::uint64_t after_ = 0;
  std::uint64_t seq_ = 0;
  std::string network_;
  Bytes hash_;
};

Result<json::object> check_file(const std::string& path) {
  struct Close {
    void operator()(std::FILE* f) const { (void)std::fclose(f); }
  };
  std::unique_ptr<std::FILE, Close> file;
  if (path != "-") {
    file.reset(std::fopen(path.c_str(), "re"));
    if (!file) return fail(Errc::kNotFound, "cannot read " + path, Source::kConfig);
  }
  std::FILE* in = file ? file.get() : stdin;
  Checker checker;
  std::string line;
  // Byte by byte, so that a line without an end takes no more memory than one of ours.
  for (int c = std::fgetc(in); c != EOF; c = std::fgetc(in)) {
    if (c != '\n') {
      line += static_cast<char>(c);
      if (line.size() <= kMaxLine) continue;
    }
    TRY(checker.take(line));
    line.clear();
  }
  if (!line.empty()) TRY(checker.take(line));
  if (!checker.begun()) return fail(Errc::kVerify, path + " is empty");
  return checker.facts();
}

}  // namespace

Status audit_list(const Common& c, const AuditOptions& o) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  std::string path = "/fleet/v1/audit?limit=" + std::to_string(o.limit);
  if (o.before > 0) path += "&before=" + std::to_string(o.before);
  TRY_ASSIGN(const auto v, fleet.get(path));
  c.out.list(v.at("items").get_array(), {{"TIME", "at"},
                                         {"ACTOR", "actor"},
                                         {"ACTION", "action"},
                                         {"SUBJECT", "subject"},
                                         {"DETAIL", "detail"},
                                         {"SEQ", "seq", true}});
  return {};
}

Status audit_verify(const Common& c, const std::string& file) {
  json::object facts;
  if (!file.empty()) {
    TRY_ASSIGN(facts, check_file(file));
  } else {
    TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
    TRY_ASSIGN(const auto v, fleet.get("/fleet/v1/audit/verify"));
    facts = v.get_object();
  }
  c.out.item(facts, {{"OK", "ok"},
                     {"ROWS", "rows"},
                     {"AFTER", "after"},
                     {"NEWEST", "seq"},
                     {"HEAD", "head"},
                     {"WHERE", "where"}});
  if (!is_true(facts, "ok"))
    return fail(Errc::kVerify, "the chain is broken: " + cell(facts, "where"));
  return {};
}

Status audit_export(const Common& c, const AuditOptions& o) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  std::uint64_t after = o.after;
  std::uint64_t rows = 0;
  std::string head;
  std::string text;
  for (bool first = true;; first = false) {
    TRY_ASSIGN(const auto v, fleet.get("/fleet/v1/audit/export?limit=" + std::to_string(kPage) +
                                       "&after=" + std::to_string(after)));
    const auto& page = v.get_object();
    const auto& items = page.at("items").get_array();
    if (first) {
      text += json::serialize(json::object{{"audit", "sallyport"},
                                           {"network", page.at("network")},
                                           {"after", page.at("after")},
                                           {"hash", page.at("hash")}}) +
              "\n";
      head = text_of(page, "hash");
      // Rows that were pruned are not there to begin with.
      after = number_of(page, "after").value_or(after);
    }
    for (const auto& row : items) {
      text += json::serialize(row) + "\n";
      after = number_of(row.get_object(), "seq").value_or(after);
      head = text_of(row.get_object(), "hash");
    }
    rows += items.size();
    if (items.size() < kPage) break;
  }
  if (o.file.empty() || o.file == "-") {
    std::fwrite(text.data(), 1, text.size(), stdout);
    return {};
  }
  TRY(fs::write_file_atomic(o.file, as_bytes(text), 0600));
  c.out.done(std::to_string(rows) + " rows in " + o.file + "; head " + head +
                 "; check it anywhere: sally audit verify " + o.file,
             {{"rows", rows}, {"file", o.file}, {"seq", after}, {"head", head}});
  return {};
}

Status audit_prune(const Common& c, const AuditOptions& o, bool yes) {
  TRY(confirm("forget audit rows older than " + std::to_string(o.keep_days) + " days", yes));
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  const auto before =
      format_time(system_clock().unix_ms() - static_cast<std::int64_t>(o.keep_days) * kDayMs);
  TRY_ASSIGN(const auto v, fleet.post("/fleet/v1/audit/prune", json::object{{"before", before}}));
  c.out.done(cell(v.get_object(), "pruned") + " rows are gone; the chain begins after row " +
                 cell(v.get_object(), "through"),
             v.get_object());
  return {};
}

}  // namespace sally::cli
