// SPDX-License-Identifier: Apache-2.0
#include "store/filter.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/clock.h"
#include "base/text.h"

namespace sally::store::filter {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

constexpr std::string_view kReserved[] = {
    "and",      "or",        "not",   "sort",  "by",   "asc",   "desc",    "skip",
    "limit",    "none",      "in",    "where", "from", "true",  "between", "false",
    "contains", "icontains", "anyof", "allof", "null", "count", "isempty"};

struct Operand {
  Over over = Over::kField;
  Type type = Type::kString;  ///< of what is compared: of an element, of the number
  std::string symbol;
  std::vector<Node> where;
};

/// One text, read once from left to right. Owner: parse(). Failure: the first one is kept, and
/// every later step does nothing.
class Parser {
 public:
  Parser(std::string_view text, const Schema& schema) : text_(text), schema_(&schema) {}

  Result<Query> query() {
    if (text_.size() > kMaxText) return fail(Errc::kBadFilter, "longer than 64 KiB");
    Query q = parts();
    blanks();
    if (ok() && at_ != text_.size()) bad("nothing more");
    if (error_) return std::unexpected(std::move(*error_));
    return q;
  }

  Result<std::vector<SortKey>> sort() {
    if (text_.size() > kMaxText) return fail(Errc::kBadSort, "longer than 64 KiB");
    blanks();
    auto keys = sort_keys();
    blanks();
    if (ok() && at_ != text_.size()) bad("nothing more");
    if (error_) return std::unexpected(std::move(*error_));
    return keys;
  }

 private:
  // ---- text
  [[nodiscard]] bool ok() const { return !error_; }
  void refuse(Errc code, std::string why) {
    if (ok()) error_.emplace(code, "at " + std::to_string(at_ + 1) + ": " + std::move(why));
  }
  void bad(std::string_view wanted) { refuse(Errc::kBadFilter, "expected " + std::string(wanted)); }
  [[nodiscard]] char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool blanks() {
    const std::size_t from = at_;
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
    return at_ != from;
  }
  bool take(std::string_view what) {
    if (!ok() || !text_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }
  /// The word at this place, lower-case; nothing is taken.
  [[nodiscard]] std::string word() const {
    std::size_t end = at_;
    while (end < text_.size() && (is_letter(text_[end]) || is_digit(text_[end]) ||
                                  text_[end] == '_' || text_[end] == '.' || text_[end] == '-'))
      ++end;
    return lower(text_.substr(at_, end - at_));
  }
  bool take_word(std::string_view keyword) {
    if (!ok() || word() != keyword) return false;
    at_ += keyword.size();
    return true;
  }
  /// A keyword that needs a blank behind it.
  bool take_word_and_blank(std::string_view keyword) {
    const std::size_t from = at_;
    if (take_word(keyword) && blanks()) return true;
    at_ = from;
    return false;
  }

  std::string ident() {
    const bool quoted = take("'");
    const std::size_t from = at_;
    if (!is_letter(peek())) bad("a name");
    bool dotted = false;
    for (; ok() && at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '.' && at_ + 1 < text_.size() && is_letter(text_[at_ + 1])) {
        dotted = true;
      } else if (!is_letter(c) && !is_digit(c) && c != '_' && !(c == '-' && dotted)) {
        break;
      }
    }
    std::string name(text_.substr(from, at_ - from));
    if (quoted && !take("'")) bad("'");
    if (!quoted && std::ranges::contains(kReserved, lower(name))) {
      at_ = from;
      bad("a name, not a keyword");
    }
    return name;
  }

  const Symbol* symbol(const std::string& name) {
    for (const Symbol& s : schema_->symbols) {
      if (s.type == Type::kTags ? name.starts_with(std::string(s.name) + ".") : s.name == name)
        return &s;
    }
    return nullptr;
  }

  // ---- literals
  std::string string_literal() {
    std::string out;
    if (!take("\"")) bad("a string in double quotes");
    while (ok()) {
      if (at_ == text_.size()) {
        bad("the end of the string");
        break;
      }
      const char c = text_[at_++];
      if (c == '"') break;
      if (c != '\\') {
        out += c;
        continue;
      }
      static constexpr std::string_view kFrom = "\"\\nrtf";
      static constexpr std::string_view kTo = "\"\\\n\r\t\f";
      const auto i = at_ < text_.size() ? kFrom.find(text_[at_]) : std::string_view::npos;
      if (i == std::string_view::npos) {
        bad("one of \\\" \\\\ \\n \\r \\t \\f");
        break;
      }
      out += kTo[i];
      ++at_;
    }
    return out;
  }

  double number() {
    std::size_t end = at_;
    if (end < text_.size() && text_[end] == '-') ++end;
    const std::size_t first = end;
    while (end < text_.size() && is_digit(text_[end])) ++end;
    const std::size_t digits = end - first;
    if (digits == 0 || (digits > 1 && text_[first] == '0')) {
      bad("a number");
      return 0;
    }
    double out = 0;
    const auto r = std::from_chars(text_.data() + at_, text_.data() + text_.size(), out);
    if (r.ec != std::errc() || !std::isfinite(out)) {
      bad("a number that can be kept");
      return 0;
    }
    at_ = static_cast<std::size_t>(r.ptr - text_.data());
    return out;
  }

  /// Of skip and limit: no fraction, not negative.
  std::int64_t count() {
    const std::size_t from = at_;
    const double n = number();
    if (ok() && (n < 0 || n > 1e15 || n != std::floor(n))) {
      at_ = from;
      bad("a whole number");
    }
    return ok() ? static_cast<std::int64_t>(n) : 0;
  }

  Time time() {
    blanks();
    const auto end = text_.find(')', at_);
    const auto ms = end == std::string_view::npos ? std::nullopt
                                                  : parse_time(trim(text_.substr(at_, end - at_)));
    if (!ms) {
      bad("datetime(2026-01-02T03:04:05Z)");
      return {};
    }
    at_ = end + 1;
    return {*ms};
  }

  Value literal() {
    if (++terms_ > kMaxTerms) bad("fewer values");
    if (peek() == '"') return string_literal();
    if (peek() == '-' || is_digit(peek())) return number();
    if (take("datetime(")) return time();
    if (take_word("true")) return true;
    if (take_word("false")) return false;
    if (take_word("null")) return std::monostate();
    bad("a value");
    return {};
  }

  // ---- expressions
  Query parts() {
    Query q;
    blanks();
    const std::string first = word();
    if (at_ != text_.size() && first != "sort" && first != "skip" && first != "limit" &&
        peek() != ')')
      q.where = expression();
    const auto next = [&](std::string_view keyword) {
      const std::size_t from = at_;
      blanks();
      if (take_word_and_blank(keyword)) return true;
      at_ = from;
      return false;
    };
    if (next("sort")) {
      if (!take_word_and_blank("by")) bad("by");
      q.sort = sort_keys();
    }
    if (next("skip")) q.skip = count();
    if (next("limit")) {
      if (take_word("none")) {
        q.limit = kNoLimit;
      } else {
        q.limit = count();
      }
    }
    return q;
  }

  std::vector<SortKey> sort_keys() {
    std::vector<SortKey> keys;
    do {
      blanks();
      const std::size_t from = at_;
      SortKey key{.symbol = ident()};
      const Symbol* s = ok() ? symbol(key.symbol) : nullptr;
      if (s == nullptr || s->type >= Type::kTags) {
        at_ = from;
        refuse(Errc::kBadSort, "cannot be sorted by '" + key.symbol + "'");
        return keys;
      }
      const std::size_t behind = at_;
      key.descending = blanks() && take_word("desc");
      if (!key.descending && (at_ == behind || !take_word("asc"))) at_ = behind;
      if (keys.size() < kMaxSortKeys) keys.push_back(std::move(key));
      const std::size_t end = at_;
      blanks();
      if (peek() != ',') at_ = end;
    } while (ok() && take(","));
    return keys;
  }

  Node expression() {
    Node chain{.op = Op::kChain};
    if (++depth_ > kMaxDepth) bad("less that is nested");
    while (ok()) {
      blanks();
      if (take_word_and_blank("not")) {  // takes everything to its right
        Node n{.op = Op::kNot};
        n.children.push_back(expression());
        chain.children.push_back(std::move(n));
        break;
      }
      chain.children.push_back(term());
      const std::size_t end = at_;
      const bool both = blanks() && take_word_and_blank("and");
      if (!both && (at_ == end || !take_word_and_blank("or"))) {
        at_ = end;
        break;
      }
      chain.ands.push_back(both);
    }
    --depth_;
    if (!ok()) return {};
    if (chain.children.size() > 1) return chain;
    Node only = std::move(chain.children.front());
    return only;
  }

  Node term() {
    if (++terms_ > kMaxTerms) bad("fewer operations");
    if (take("(")) {
      Node inner = expression();
      blanks();
      if (!take(")")) bad(")");
      return inner;
    }
    if (take_word("true")) return {};
    if (take_word("false")) {
      Node no{.op = Op::kNot};
      no.children.emplace_back();
      return no;
    }
    if (word() == "isempty") {
      at_ += 7;
      Node n{.op = Op::kIsEmpty};
      set_expression(n.symbol, n.type, n.children);
      return n;
    }
    Operand operand = this->operand();
    const std::size_t end = at_;
    blanks();
    return operation(std::move(operand), end);
  }

  /// "(" set, or "(from set where ...)"
  void set_expression(std::string& name, Type& type, std::vector<Node>& where) {
    if (!take("(")) bad("(");
    blanks();
    const bool from = take_word_and_blank("from");
    name = ident();
    const Symbol* s = ok() ? symbol(name) : nullptr;
    if (s == nullptr || (s->type != Type::kLinks && (from || s->type != Type::kStrings))) {
      refuse(Errc::kBadFilter, "no set '" + name + "' to look into");
      return;
    }
    type = s->type;
    if (from) {
      blanks();
      if (!take_word_and_blank("where")) bad("where");
      if (s->linked == nullptr)
        refuse(Errc::kBadFilter, "nothing is known of what is in '" + name + "'");
      if (!ok() || ++depth_ > kMaxDepth) return bad("less that is nested");
      const Schema* outer = std::exchange(schema_, s->linked);
      where.push_back(std::move(parts().where));
      schema_ = outer;
      --depth_;
    }
    blanks();
    if (!take(")")) bad(")");
  }

  Operand operand() {
    Operand o;
    const std::string first = word();
    if (first == "anyof" || first == "allof") {
      at_ += 5;
      o.over = first == "anyof" ? Over::kAny : Over::kAll;
      Type set{};
      set_expression(o.symbol, set, o.where);
      if (!o.where.empty()) refuse(Errc::kBadFilter, "a subquery stands in isEmpty or count only");
      return o;
    }
    if (first == "count") {
      at_ += 5;
      o.over = Over::kCount;
      Type set{};
      set_expression(o.symbol, set, o.where);
      o.type = Type::kNumber;
      return o;
    }
    const std::size_t from = at_;
    o.symbol = ident();
    const Symbol* s = ok() ? symbol(o.symbol) : nullptr;
    if (s == nullptr || s->type == Type::kStrings || s->type == Type::kLinks) {
      at_ = from;
      refuse(Errc::kBadFilter, s == nullptr
                                   ? "unknown name '" + o.symbol + "'"
                                   : "'" + o.symbol + "' is a set: anyOf(...) or allOf(...)");
      return o;
    }
    o.type = s->type;
    return o;
  }

  Node operation(Operand o, std::size_t end) {
    Node n{.over = o.over,
           .type = o.type,
           .symbol = std::move(o.symbol),
           .children = std::move(o.where)};
    const std::size_t from = at_;
    struct Sign {
      std::string_view text;
      Op op;
      bool negated;
    };
    static constexpr Sign kSigns[] = {
        {"!=", Op::kEqual, true},           {"=", Op::kEqual, false},
        {"<=", Op::kLessOrEqual, false},    {"<", Op::kLess, false},
        {">=", Op::kGreaterOrEqual, false}, {">", Op::kGreater, false}};
    for (const Sign& sign : kSigns) {
      if (!take(sign.text)) continue;
      n.op = sign.op;
      n.negated = sign.negated;
      blanks();
      n.values.push_back(literal());
      return checked(std::move(n), from);
    }
    const bool blank_before = from != end;
    n.negated = blank_before && take_word_and_blank("not");
    if (blank_before && take_word("in")) {
      n.op = Op::kIn;
      list(n.values);
    } else if (blank_before && take_word_and_blank("between")) {
      n.op = Op::kBetween;
      n.values.push_back(literal());
      if (!blanks() || !take_word_and_blank("and")) bad("and");
      n.values.push_back(literal());
    } else if (blank_before && (word() == "contains" || word() == "icontains")) {
      n.op = word() == "contains" ? Op::kContains : Op::kIcontains;
      at_ += word().size();
      if (!blanks()) bad("a blank");
      n.values.push_back(literal());
    } else if (!n.negated && n.over == Over::kField && n.type == Type::kBool) {
      at_ = end;  // alone
      n.op = Op::kEqual;
      n.values.emplace_back(true);
    } else {
      bad("an operator");
    }
    return checked(std::move(n), from);
  }

  void list(std::vector<Value>& values) {
    blanks();
    if (!take("[")) bad("[");
    do {
      blanks();
      values.push_back(literal());
      if (ok() && values.back().index() != values.front().index()) bad("values of one type");
      blanks();
    } while (ok() && take(","));
    if (!take("]")) bad("]");
  }

  [[nodiscard]] static bool fits(Type type, const Value& v) {
    switch (type) {
      case Type::kString:
        return std::holds_alternative<std::string>(v);
      case Type::kNumber:
        return std::holds_alternative<double>(v);
      case Type::kTime:
        return std::holds_alternative<Time>(v);
      case Type::kBool:
        return std::holds_alternative<bool>(v);
      case Type::kTags:
        return !std::holds_alternative<std::monostate>(v);
      case Type::kStrings:
      case Type::kLinks:
        break;
    }
    return false;
  }

  // Which value an operator takes, of which operand.
  Node checked(Node n, std::size_t from) {
    if (!ok()) return {};
    const Value& v = n.values.front();
    const bool text = std::holds_alternative<std::string>(v);
    const bool digits = std::holds_alternative<double>(v);
    const bool ordered = text || digits || std::holds_alternative<Time>(v);
    bool good = std::ranges::all_of(
        n.values, [&](const Value& one) { return one.index() == v.index() && fits(n.type, one); });
    switch (n.op) {
      case Op::kEqual:
        good |= std::holds_alternative<std::monostate>(v);
        break;
      case Op::kBetween:
        good &= ordered && !text;
        break;
      case Op::kContains:
        good = (text || digits) && n.type != Type::kTime && n.type != Type::kBool;
        break;
      case Op::kIcontains:
        good &= text;
        break;
      default:
        good &= ordered;
        break;
    }
    if (good) return n;
    at_ = from;
    refuse(Errc::kBadFilter, "'" + n.symbol + "' cannot be compared like that");
    return {};
  }

  std::string_view text_;
  const Schema* schema_;
  std::size_t at_ = 0;
  int depth_ = 0;
  std::size_t terms_ = 0;
  std::optional<Error> error_;
};

}  // namespace

Result<Query> parse(std::string_view text, const Schema& schema) {
  return Parser(text, schema).query();
}

Result<std::vector<SortKey>> parse_sort(std::string_view text, const Schema& schema) {
  return Parser(text, schema).sort();
}

}  // namespace sally::store::filter
