// SPDX-License-Identifier: Apache-2.0
// Two archives over protozero, included by the messages_*.cc of this folder only. Each message has
// one function template `fields(archive, message)`; Out writes every field that is not default, In
// offers each wire field to it until one takes it, and afterwards runs it once more to see what is
// missing.
#pragma once

#include <array>
#include <concepts>
#include <limits>
#include <optional>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/text.h"
#include "wire/messages.h"

namespace sally::wire::coding {

template <typename M, typename T>
concept Is = std::same_as<std::remove_const_t<M>, T>;

inline protozero::data_view view(ByteView b) {
  const auto t = as_text(b);
  return {t.data(), t.size()};
}
inline ByteView bytes(protozero::data_view v) {
  return as_bytes(std::string_view(v.data(), v.size()));
}

/// Free text of a peer: what is not printable becomes '?', what is too long is cut.
inline std::string clean_note(std::string_view text) {
  std::string out(text.substr(0, kMaxNote));
  if (printable_utf8(out)) return out;
  for (char& c : out) {
    const auto u = static_cast<unsigned char>(c);
    if (u < 0x20 || u > 0x7e) c = '?';
  }
  return out;
}

enum class Need : std::uint8_t { kNo, kYes };

/// Encoder. On the stack of encode(); cannot fail.
class Out {
 public:
  static constexpr bool kDecoding = false;
  explicit Out(std::string& buffer) : buffer_(buffer), w_(buffer) {}
  Out(std::string& buffer, protozero::pbf_writer&& w) : buffer_(buffer), w_(std::move(w)) {}

  void number(std::uint32_t tag, const std::uint64_t& v) {
    if (v != 0) w_.add_uint64(tag, v);
  }
  void number(std::uint32_t tag, const std::uint32_t& v) {
    if (v != 0) w_.add_uint32(tag, v);
  }
  void time(std::uint32_t tag, const std::int64_t& v) {
    if (v != 0) w_.add_int64(tag, v);
  }
  void flag(std::uint32_t tag, const bool& v) {
    if (v) w_.add_bool(tag, v);
  }
  template <typename E>
  void choice(std::uint32_t tag, const E& v, E /*last*/, Need /*need*/ = Need::kNo) {
    if (v != E{}) w_.add_enum(tag, static_cast<std::int32_t>(v));
  }
  void text(std::uint32_t tag, const std::string& v, std::size_t /*max*/,
            Need /*need*/ = Need::kNo) {
    if (!v.empty()) w_.add_string(tag, v);
  }
  void document(std::uint32_t tag, const std::string& v, std::size_t max) { text(tag, v, max); }
  void note(std::uint32_t tag, const std::string& v) {
    if (!v.empty()) w_.add_string(tag, clean_note(v));
  }
  void blob(std::uint32_t tag, const Bytes& v, std::size_t /*max*/, Need /*need*/ = Need::kNo) {
    if (!v.empty()) w_.add_bytes(tag, view(v));
  }
  template <std::size_t N>
  void fixed(std::uint32_t tag, const std::array<std::uint8_t, N>& v, Need need = Need::kYes) {
    if (need == Need::kYes || v != std::array<std::uint8_t, N>{}) w_.add_bytes(tag, view(v));
  }
  void texts(std::uint32_t tag, const std::vector<std::string>& v, std::size_t /*count*/,
             std::size_t /*max*/) {
    for (const auto& t : v) w_.add_string(tag, t);
  }
  void blobs(std::uint32_t tag, const std::vector<Bytes>& v, std::size_t /*count*/,
             std::size_t /*max*/) {
    for (const auto& b : v) w_.add_bytes(tag, view(b));
  }
  void labels(std::uint32_t tag, const std::vector<std::uint32_t>& v, std::size_t /*count*/) {
    w_.add_packed_uint32(tag, v.begin(), v.end());
  }
  template <typename M>
  void message(std::uint32_t tag, const M& v) {
    const auto before = buffer_.size();
    {
      Out out(buffer_, protozero::pbf_writer(w_, tag));
      fields(out, v);
    }
    if (buffer_.size() == before)
      w_.add_bytes(tag, "");  // protozero drops an empty sub-message; it is there
  }
  template <typename M>
  void messages(std::uint32_t tag, const std::vector<M>& v, std::size_t /*count*/) {
    for (const auto& m : v) message(tag, m);
  }
  /// One alternative of a variant.
  template <typename M, typename... Ms>
  void member(std::uint32_t tag, const std::variant<Ms...>& v) {
    if (const M* m = std::get_if<M>(&v)) message(tag, *m);
  }
  template <typename M, typename... Ms>
  void bare_text(std::uint32_t tag, const std::variant<Ms...>& v, std::string M::* at,
                 std::size_t /*max*/) {
    if (const M* m = std::get_if<M>(&v)) w_.add_string(tag, m->*at);
  }
  template <typename M, typename... Ms>
  void bare_blob(std::uint32_t tag, const std::variant<Ms...>& v, Bytes M::* at,
                 std::size_t /*max*/) {
    if (const M* m = std::get_if<M>(&v)) w_.add_bytes(tag, view(m->*at));
  }

 private:
  std::string& buffer_;
  protozero::pbf_writer w_;
};

/// Decoder of one message. On the stack of decode(); the first error sticks.
class In {
 public:
  static constexpr bool kDecoding = true;
  explicit In(ByteView in) : r_(view(in)) {}

  /// May throw what protozero throws; decode() catches it.
  template <typename M>
  std::optional<Error> run(M& m) {
    while (r_.next()) {
      taken_ = false;
      fields(*this, m);
      if (error_) return error_;
      if (!taken_) r_.skip();
    }
    finishing_ = true;
    fields(*this, m);
    if (!error_ && wants_member_ && !has_member_) set(Errc::kMissing, 0);
    return error_;
  }

  void number(std::uint32_t tag, std::uint64_t& v) {
    if (take(tag, protozero::pbf_wire_type::varint)) v = r_.get_uint64();
  }
  void number(std::uint32_t tag, std::uint32_t& v) {
    if (!take(tag, protozero::pbf_wire_type::varint)) return;
    const auto wide = r_.get_uint64();
    if (wide > std::numeric_limits<std::uint32_t>::max()) return set(Errc::kValue, tag);
    v = static_cast<std::uint32_t>(wide);
  }
  void time(std::uint32_t tag, std::int64_t& v) {
    if (!take(tag, protozero::pbf_wire_type::varint)) return;
    v = r_.get_int64();
    if (v < 0) set(Errc::kValue, tag);
  }
  void flag(std::uint32_t tag, bool& v) {
    if (take(tag, protozero::pbf_wire_type::varint)) v = r_.get_uint64() != 0;
  }
  template <typename E>
  void choice(std::uint32_t tag, E& v, E last, Need need = Need::kNo) {
    if (finishing_) {
      if (need == Need::kYes && v == E{}) set(Errc::kMissing, tag);
      return;
    }
    if (!take(tag, protozero::pbf_wire_type::varint)) return;
    const auto wide = r_.get_uint64();
    if (wide > static_cast<std::uint64_t>(last)) return set(Errc::kValue, tag);
    v = static_cast<E>(wide);
  }
  void text(std::uint32_t tag, std::string& v, std::size_t max, Need need = Need::kNo) {
    if (finishing_) {
      if (need == Need::kYes && v.empty()) set(Errc::kMissing, tag);
      return;
    }
    if (!take(tag, protozero::pbf_wire_type::length_delimited)) return;
    v = printable(tag, max);
  }
  void document(std::uint32_t tag, std::string& v, std::size_t max) {
    if (take(tag, protozero::pbf_wire_type::length_delimited)) v = as_text(sized(tag, max));
  }
  void note(std::uint32_t tag, std::string& v) {
    if (take(tag, protozero::pbf_wire_type::length_delimited))
      v = clean_note(as_text(bytes(r_.get_view())));
  }
  void blob(std::uint32_t tag, Bytes& v, std::size_t max, Need need = Need::kNo) {
    if (finishing_) {
      if (need == Need::kYes && v.empty()) set(Errc::kMissing, tag);
      return;
    }
    if (!take(tag, protozero::pbf_wire_type::length_delimited)) return;
    v = to_bytes(sized(tag, max));
  }
  template <std::size_t N>
  void fixed(std::uint32_t tag, std::array<std::uint8_t, N>& v, Need need = Need::kYes) {
    if (finishing_) {
      if (need == Need::kYes && (seen_ & bit(tag)) == 0) set(Errc::kMissing, tag);
      return;
    }
    if (!take(tag, protozero::pbf_wire_type::length_delimited)) return;
    const auto in = bytes(r_.get_view());
    if (in.size() != N) return set(Errc::kValue, tag);
    std::copy(in.begin(), in.end(), v.begin());
  }
  void texts(std::uint32_t tag, std::vector<std::string>& v, std::size_t count, std::size_t max) {
    if (!take(tag, protozero::pbf_wire_type::length_delimited) || full(tag, v.size(), count))
      return;
    v.push_back(printable(tag, max));
    if (v.back().empty()) set(Errc::kValue, tag);
  }
  void blobs(std::uint32_t tag, std::vector<Bytes>& v, std::size_t count, std::size_t max) {
    if (!take(tag, protozero::pbf_wire_type::length_delimited) || full(tag, v.size(), count))
      return;
    v.push_back(to_bytes(sized(tag, max)));
  }
  /// Packed or one by one; 0 is no label.
  void labels(std::uint32_t tag, std::vector<std::uint32_t>& v, std::size_t count) {
    const auto add = [&](std::uint64_t label) {
      if (full(tag, v.size(), count)) return false;
      if (label == 0 || label > std::numeric_limits<std::uint32_t>::max()) {
        set(Errc::kValue, tag);
        return false;
      }
      v.push_back(static_cast<std::uint32_t>(label));
      return true;
    };
    if (here(tag) && r_.wire_type() == protozero::pbf_wire_type::varint) {
      take(tag, protozero::pbf_wire_type::varint);
      add(r_.get_uint64());
    } else if (take(tag, protozero::pbf_wire_type::length_delimited)) {
      for (const auto label : r_.get_packed_uint64()) {
        if (!add(label)) return;
      }
    }
  }
  template <typename M>
  void message(std::uint32_t tag, M& v, Need need = Need::kYes) {
    if (finishing_) {
      if (need == Need::kYes && (seen_ & bit(tag)) == 0) set(Errc::kMissing, tag);
      return;
    }
    const bool again = (seen_ & bit(tag)) != 0;
    if (!take(tag, protozero::pbf_wire_type::length_delimited)) return;
    if (again) return set(Errc::kDuplicate, tag);
    nested(tag, v);
  }
  template <typename M>
  void messages(std::uint32_t tag, std::vector<M>& v, std::size_t count) {
    if (!take(tag, protozero::pbf_wire_type::length_delimited) || full(tag, v.size(), count))
      return;
    nested(tag, v.emplace_back());
  }
  template <typename M, typename... Ms>
  void member(std::uint32_t tag, std::variant<Ms...>& v) {
    wants_member_ = true;
    if (!take(tag, protozero::pbf_wire_type::length_delimited)) return;
    if (has_member_) return set(Errc::kDuplicate, tag);
    has_member_ = true;
    nested(tag, v.template emplace<M>());
  }
  /// A member whose wire form is a bare string or bytes field that must not be empty.
  template <typename M, typename... Ms>
  void bare_text(std::uint32_t tag, std::variant<Ms...>& v, std::string M::* at, std::size_t max) {
    M* m = bare_member<M>(tag, v);
    if (m == nullptr) return;
    m->*at = printable(tag, max);
    if ((m->*at).empty()) set(Errc::kMissing, tag);
  }
  template <typename M, typename... Ms>
  void bare_blob(std::uint32_t tag, std::variant<Ms...>& v, Bytes M::* at, std::size_t max) {
    M* m = bare_member<M>(tag, v);
    if (m == nullptr) return;
    m->*at = to_bytes(sized(tag, max));
    if ((m->*at).empty()) set(Errc::kMissing, tag);
  }

 private:
  template <typename M, typename... Ms>
  M* bare_member(std::uint32_t tag, std::variant<Ms...>& v) {
    wants_member_ = true;
    if (!take(tag, protozero::pbf_wire_type::length_delimited)) return nullptr;
    if (has_member_) {
      set(Errc::kDuplicate, tag);
      return nullptr;
    }
    has_member_ = true;
    return &v.template emplace<M>();
  }
  std::string printable(std::uint32_t tag, std::size_t max) {
    const auto in = sized(tag, max);
    if (!error_ && !printable_utf8(as_text(in))) set(Errc::kValue, tag);
    return error_ ? std::string() : to_text(in);
  }
  ByteView sized(std::uint32_t tag, std::size_t max) {
    const auto in = bytes(r_.get_view());
    if (in.size() > max) {
      set(Errc::kTooLarge, tag);
      return {};
    }
    return in;
  }
  void set(Errc e, std::uint32_t tag) {
    if (!error_) error_.emplace(e, "field " + std::to_string(tag));
  }
  static std::uint64_t bit(std::uint32_t tag) { return std::uint64_t{1} << (tag & 63U); }
  [[nodiscard]] bool here(std::uint32_t tag) const {
    return !finishing_ && !taken_ && !error_ && r_.tag() == tag;
  }
  /// True where the current wire field is `tag`; another wire type than `type` is an error.
  bool take(std::uint32_t tag, protozero::pbf_wire_type type) {
    if (!here(tag)) return false;
    taken_ = true;
    seen_ |= bit(tag);
    if (r_.wire_type() == type) return true;
    set(Errc::kMalformed, tag);
    return false;
  }
  bool full(std::uint32_t tag, std::size_t size, std::size_t count) {
    if (size < count) return false;
    set(Errc::kTooMany, tag);
    return true;
  }
  template <typename M>
  void nested(std::uint32_t tag, M& v) {
    In sub(bytes(r_.get_view()));
    auto error = sub.run(v);
    if (error && !error_) error_.emplace(std::move(*error).at("field " + std::to_string(tag)));
  }

  protozero::pbf_reader r_;
  std::uint64_t seen_ = 0;
  bool taken_ = false;
  bool finishing_ = false;
  bool wants_member_ = false;
  bool has_member_ = false;
  std::optional<Error> error_;
};

template <typename M>
Bytes encode_message(const M& m) {
  std::string buffer;
  Out out(buffer);
  fields(out, m);
  return to_bytes(buffer);
}

template <typename M>
Result<M> decode_message(ByteView in, std::size_t max, const char* what) {
  if (in.size() > max) return fail(Errc::kTooLarge, what);
  M m;
  try {
    In reader(in);
    if (auto error = reader.run(m)) return std::unexpected(std::move(*error).at(what));
  } catch (const protozero::exception&) {
    return fail(Errc::kMalformed, what);
  }
  return m;
}

}  // namespace sally::wire::coding
