// SPDX-License-Identifier: Apache-2.0
#include "http/parser.h"

#include <llhttp.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace sally::http {

namespace {

constexpr std::size_t kSmallBody = 16 * 1024;

}  // namespace

struct Parser::Impl {
  llhttp_t http{};
  llhttp_settings_t settings{};
  Kind kind;
  ParserLimits limits;
  std::string start;  // target, or reason
  std::string name;
  std::string value;
  Headers headers;
  std::string body;
  std::size_t body_length = 0;  // as Content-Length says, within the limit
  std::size_t head_size = 0;
  int status = 0;  // what to answer after an error
  bool started = false;
  bool complete = false;
  bool keep = false;
  bool expect_continue = false;
  bool no_body = false;
  bool failed = false;
  bool head_done = false;  // what follows are trailers: counted, not believed

  Impl(Kind k, ParserLimits l) : kind(k), limits(l) {
    llhttp_settings_init(&settings);
    settings.on_message_begin = on_begin;
    settings.on_url = on_start_line;
    settings.on_status = on_start_line;
    settings.on_header_field = on_name;
    settings.on_header_value = on_value;
    settings.on_header_value_complete = on_header_done;
    settings.on_headers_complete = on_head_done;
    settings.on_chunk_extension_name = on_extension;
    settings.on_chunk_extension_value = on_extension;
    settings.on_body = on_body;
    settings.on_message_complete = on_complete;
    reset();
  }

  void reset() {
    llhttp_init(&http, kind == Kind::kRequest ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    http.data = this;
    start.clear();
    name.clear();
    value.clear();
    headers = {};
    body = {};
    head_size = 0;
    status = 0;
    started = complete = keep = expect_continue = failed = head_done = false;
  }

  static Impl& of(llhttp_t* h) { return *static_cast<Impl*>(h->data); }
  int refuse(int with) {
    status = with;
    return HPE_USER;
  }
  int add(std::string& to, const char* at, std::size_t n) {
    head_size += n;
    if (head_size > limits.head) return refuse(431);
    to.append(at, n);
    return 0;
  }

  static int on_begin(llhttp_t* h) {
    of(h).started = true;
    return 0;
  }
  static int on_start_line(llhttp_t* h, const char* at, std::size_t n) {
    return of(h).add(of(h).start, at, n);
  }
  static int on_name(llhttp_t* h, const char* at, std::size_t n) {
    return of(h).add(of(h).name, at, n);
  }
  static int on_value(llhttp_t* h, const char* at, std::size_t n) {
    return of(h).add(of(h).value, at, n);
  }
  static int on_header_done(llhttp_t* h) {
    Impl& i = of(h);
    i.head_size += 4;  // colon, space, line end: empty fields count too
    if (i.head_size > i.limits.head || i.headers.list().size() >= i.limits.headers)
      return i.refuse(431);
    if (i.head_done) {
      i.name.clear();
      i.value.clear();
      return 0;
    }
    i.headers.add(std::exchange(i.name, {}), std::string(trim(std::exchange(i.value, {}))));
    return 0;
  }
  static int on_head_done(llhttp_t* h) {
    Impl& i = of(h);
    i.head_done = true;
    if ((h->flags & F_CONTENT_LENGTH) != 0 && h->content_length > i.limits.body)
      return i.refuse(413);
    i.body_length = (h->flags & F_CONTENT_LENGTH) != 0 ? h->content_length : 0;
    if (h->http_major != 1) return i.refuse(505);
    if (i.kind == Kind::kResponse) return i.no_body ? 1 : 0;
    static constexpr std::array kMethods = {HTTP_GET,   HTTP_HEAD,   HTTP_POST,   HTTP_PUT,
                                            HTTP_PATCH, HTTP_DELETE, HTTP_OPTIONS};
    if (std::find(kMethods.begin(), kMethods.end(), static_cast<llhttp_method>(h->method)) ==
        kMethods.end())
      return i.refuse(501);
    if (i.start.empty() || i.start.front() != '/') return i.refuse(400);
    const auto hosts = i.headers.all("Host").size();
    if (hosts > 1 || (hosts == 0 && h->http_minor >= 1)) return i.refuse(400);
    i.expect_continue = lower(i.headers.get("Expect")) == "100-continue";
    return 0;
  }
  static int on_extension(llhttp_t* h, const char*, std::size_t n) {
    Impl& i = of(h);
    i.head_size += n;
    return i.head_size > i.limits.head ? i.refuse(413) : 0;
  }
  static int on_body(llhttp_t* h, const char* at, std::size_t n) {
    Impl& i = of(h);
    if (i.body.size() + n > i.limits.body) return i.refuse(413);
    i.make_room(n);
    i.body.append(at, n);
    return 0;
  }
  static int on_complete(llhttp_t* h) {
    Impl& i = of(h);
    // 100 Continue and the like come before the response proper.
    if (i.kind == Kind::kResponse && h->status_code >= 100 && h->status_code < 200) {
      i.start.clear();
      i.headers = {};
      i.head_done = false;
      return 0;
    }
    i.complete = true;
    // Whoever asks to leave HTTP gets an answer and the end of the connection.
    i.keep = llhttp_should_keep_alive(h) == 1 && h->upgrade == 0;
    return HPE_PAUSED;
  }

  /// A body is allocated once: by its length, or for the limit as soon as it is not small. What is
  /// not written to costs address space only.
  void make_room(std::size_t n) {
    if (kind != Kind::kRequest || body.size() + n <= body.capacity()) return;
    if (body_length != 0) {
      body.reserve(body_length);
    } else if (body.size() + n > kSmallBody) {
      body.reserve(limits.body);
    }
  }

  State failure() {
    failed = true;
    if (status == 0) status = 400;
    return State::kError;
  }
};

Parser::Parser(Kind kind, ParserLimits limits) : impl_(std::make_unique<Impl>(kind, limits)) {}
Parser::~Parser() = default;

Parser::State Parser::feed(ByteView in, std::size_t& consumed) {
  Impl& i = *impl_;
  if (i.failed) return State::kError;
  if (i.complete) return State::kComplete;
  if (in.empty()) return State::kMore;
  const auto text = as_text(in);
  // A start line without end never reaches a callback that counts; neither do skipped line ends
  // before it.
  const auto rc = llhttp_execute(&i.http, text.data(), text.size());
  if (i.complete) {
    const char* end = llhttp_get_error_pos(&i.http);
    consumed += end == nullptr ? text.size() : static_cast<std::size_t>(end - text.data());
    return State::kComplete;
  }
  if (rc != HPE_OK) return i.failure();
  consumed += text.size();
  return State::kMore;
}

Parser::State Parser::finish() {
  Impl& i = *impl_;
  if (i.complete) return State::kComplete;
  if (i.failed || !i.started) return i.failure();
  const auto rc = llhttp_finish(&i.http);
  if (i.complete) return State::kComplete;
  (void)rc;
  return i.failure();
}

Request Parser::take_request() {
  Impl& i = *impl_;
  Request r;
  r.method = llhttp_method_name(static_cast<llhttp_method_t>(i.http.method));
  r.target = std::move(i.start);
  const std::size_t at = r.target.find('?');
  r.path = r.target.substr(0, at);
  if (at != std::string::npos) r.query = r.target.substr(at + 1);
  r.headers = std::move(i.headers);
  r.body = std::move(i.body);
  i.reset();
  return r;
}

Response Parser::take_response() {
  Impl& i = *impl_;
  Response r;
  r.status = i.http.status_code;
  r.headers = std::move(i.headers);
  r.body = std::move(i.body);
  i.reset();
  return r;
}

void Parser::expect_no_body() {
  impl_->no_body = true;
}
bool Parser::keep_alive() const {
  return impl_->keep;
}
bool Parser::take_expect_continue() {
  return std::exchange(impl_->expect_continue, false);
}
bool Parser::started() const {
  return impl_->started;
}
std::size_t Parser::body_size() const {
  return impl_->body.size();
}
int Parser::error_status() const {
  return impl_->status;
}

}  // namespace sally::http
