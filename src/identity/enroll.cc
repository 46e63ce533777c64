// SPDX-License-Identifier: Apache-2.0
#include "identity/enroll.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/text.h"
#include "crypto/csr.h"
#include "crypto/pkcs7.h"
#include "http/client.h"
#include "identity/json.h"

namespace sally::identity {
namespace {

constexpr std::size_t kMaxAnswer = 256 * 1024;
constexpr char kCacerts[] = "/edge/client/v1/.well-known/est/cacerts";
constexpr char kEnroll[] = "/edge/client/v1/enroll?method=ott&token=";

// What the controller says of a token. Ours name the cause, others only the class.
struct Refusal {
  std::string_view cause;
  std::string_view code;
  Errc errc;
  std::string_view text;
};
constexpr std::array kRefusals{
    Refusal{"pki.token_used", {}, Errc::kTokenUsed, "the token was used already"},
    Refusal{"pki.token_expired", "ENROLLMENT_EXPIRED", Errc::kTokenExpired,
            "the time of the token is over"},
    Refusal{"pki.token_revoked", {}, Errc::kTokenRefused, "the token was taken back"},
    Refusal{"pki.token_unknown", {}, Errc::kTokenRefused, "the controller knows no such token"},
    Refusal{"pki.token_foreign", {}, Errc::kTokenRefused, "the token is of another network"},
    Refusal{"pki.token_altered", {}, Errc::kTokenAltered, "the token was altered or cut"},
    Refusal{"pki.identity_inactive",
            {},
            Errc::kTokenRefused,
            "what the token is for was removed or suspended"},
    Refusal{{},
            "INVALID_ENROLLMENT_TOKEN",
            Errc::kTokenRefused,
            "the token is not valid; it may have been used already"},
    Refusal{{},
            "INVALID_ENROLL_METHOD",
            Errc::kTokenRefused,
            "the token is of a kind that is not taken here"},
};

bool is_tls(const Error& e) {
  return e.code().starts_with("tls.");
}

class EnrollingImpl final : public Enrolling {
 public:
  EnrollingImpl(loop::Loop& loop, const std::string& token, EnrollOptions options, OnEnrolled done)
      : loop_(loop),
        options_(std::move(options)),
        clock_(options.clock != nullptr ? *options.clock : system_clock()),
        done_(std::move(done)),
        begin_(loop.timers(), [this] { step(ask_roots()); }) {
    auto parsed = parse_token(token);
    if (parsed)
      token_ = std::move(*parsed);
    else
      early_ = std::move(parsed).error();
    begin_.arm(0);  // never call back from the constructor
  }

 private:
  using Next = Status (EnrollingImpl::*)(http::ClientResponse);

  void step(Status status) {
    if (!status) finish(fail(std::move(status).error()));
  }

  void send(const std::string& target, http::RequestOptions o, Next next) {
    o.timeout_ms = options_.timeout_ms;
    o.max_response = kMaxAnswer;
    o.headers.add("Accept", "application/json, */*");
    const auto answered = [this, next](Result<http::ClientResponse> r) {
      if (!r) return finish(fail(explain(std::move(r).error())));
      step((this->*next)(std::move(*r)));
    };
    if (call_)
      call_->again(target, std::move(o), answered);
    else
      call_ = http::request(loop_, token_.issuer + target, std::move(o), answered);
  }

  Error explain(Error e) const {
    if (is_tls(e))
      return Error(Errc::kController, token_.issuer + ": " + e.text(), Source::kPeer, e.retry());
    return e;
  }

  // 1: the roots, from somebody. Nothing is believed yet.
  Status ask_roots() {
    if (early_) return fail(*early_);
    http::RequestOptions o;
    TRY_ASSIGN(o.context, http::unverified_enrolment_context());
    o.verify_host = false;  // below, against the captured leaf
    o.keep_open = true;
    send(kCacerts, std::move(o), &EnrollingImpl::got_roots);
    return {};
  }

  // 2: the token, which came to us another way, vouches for the key of that leaf and so for what
  // was read; the leaf then has to be the controller's under those roots. 3: our request, to the
  // same peer.
  Status got_roots(http::ClientResponse response) {
    if (!response.captured_leaf)
      return fail(Errc::kController, "no certificate", Source::kInternal);
    const crypto::Certificate& leaf = *response.captured_leaf;
    TRY(believe(leaf));
    TRY(take_roots(response));
    crypto::PathPolicy policy;
    policy.anchors = out_.anchors;
    policy.known_issuing = out_.issuing;
    policy.purpose = crypto::Purpose::kTlsServer;
    policy.now_s = clock_.unix_s();
    policy.network = network_.str();
    policy.roles = {crypto::Role::kController};
    if (auto path = crypto::validate_path(leaf, {}, policy); !path)
      return fail(Errc::kNotBelieved,
                  "the server at " + token_.issuer +
                      " is not the controller of this token: " + path.error().text());
    return request_certificate();
  }

  Status believe(const crypto::Certificate& leaf) {
    TRY(verify_token(token_, leaf, clock_.unix_s()));
    const std::int64_t now = clock_.unix_s();
    if (now < leaf.not_before() || now > leaf.not_after())
      return fail(Errc::kNotBelieved, "the controller's certificate is outside its time");
    if (!leaf.matches_host(token_.host))
      return fail(Errc::kNotBelieved, "the controller's certificate is not for " + token_.host);
    const auto uri = leaf.uri_sans().size() == 1
                         ? crypto::parse_identity_uri(leaf.uri_sans().front())
                         : Result<crypto::IdentityName>(fail(Errc::kController));
    if (!uri || uri->role != crypto::Role::kController)
      return fail(Errc::kController, token_.issuer + " is no controller of a Sallyport network");
    if (!token_.network.empty() && token_.network.str() != uri->network)
      return fail(Errc::kNotBelieved, "the token is of network " + token_.network.str() +
                                          ", the controller of " + uri->network);
    network_ = NetworkId(uri->network);
    return {};
  }

  Status take_roots(const http::ClientResponse& response) {
    if (response.status != 200)
      return fail(Errc::kController, "roots: HTTP status " + std::to_string(response.status));
    const auto der = from_base64(response.body);
    if (!der) return fail(Errc::kController, "roots: not base64");
    auto list = crypto::from_pkcs7(*der);
    if (!list) return fail(Errc::kController, "roots: " + list.error().text());
    for (auto& c : *list) {
      if (!c.is_ca()) continue;
      (c.self_issued() ? out_.anchors : out_.issuing).push_back(std::move(c));
    }
    const bool named =
        token_.root_sha256.empty()
            ? !out_.anchors.empty()
            : std::any_of(out_.anchors.begin(), out_.anchors.end(),
                          [&](const auto& c) { return c.sha256_hex() == token_.root_sha256; });
    if (!named)
      return fail(Errc::kNotBelieved, "the controller's roots do not contain the one of the token");
    return {};
  }

  Status request_certificate() {
    out_.key = options_.key;
    if (out_.key == nullptr) {
      TRY_ASSIGN(out_.key, crypto::FileKey::generate(options_.key_type));
    }
    TRY_ASSIGN(auto csr, crypto::make_csr(*out_.key, token_.subject));
    http::RequestOptions o;
    o.method = "POST";
    o.headers.add("Content-Type", "text/plain");
    o.body = std::move(csr);
    // Our controllers take the whole token and can say what is wrong with it; others only its id.
    const std::string& token = token_.network.empty() ? token_.id : token_.text;
    send(kEnroll + http::percent_encode(token), std::move(o), &EnrollingImpl::enrolled);
    return {};
  }

  Status refusal(const http::ClientResponse& response) const {
    std::string code = "HTTP status " + std::to_string(response.status);
    std::string message;
    std::string cause;
    if (const auto body = parse_object(response.body))
      if (const auto* error = object_at(*body, "error")) {
        if (auto given = text_at(*error, "code"); !given.empty()) code = std::move(given);
        message = text_at(*error, "message");
        if (const auto* of = object_at(*error, "cause")) cause = text_at(*of, "code");
      }
    if (!printable_utf8(code) || code.size() > 64) code = "unreadable";
    if (!printable_utf8(message) || message.size() > 256) message.clear();
    const std::string text = message.empty() ? code : code + ": " + message;
    for (const auto& known : kRefusals) {
      if (cause.empty() ? code == known.code : cause == known.cause)
        return fail(known.errc, std::string(known.text) + "; ask for a new one");
    }
    if (response.status == 503 || response.status == 429)
      return fail(Errc::kBusy, text, Source::kPeer, true);
    return fail(Errc::kRefused, text);
  }

  Status enrolled(http::ClientResponse response) {
    if (response.status != 200) return refusal(response);
    const auto body = parse_object(response.body);
    const auto* data = body ? object_at(*body, "data") : nullptr;
    if (data == nullptr) return fail(Errc::kController, "answer without data");
    auto chain = crypto::Certificate::list_from_pem(text_at(*data, "cert"));
    if (!chain) return fail(Errc::kController, "certificate: " + chain.error().text());
    if (!(chain->front().public_key() == out_.key->public_key()))
      return fail(Errc::kMismatch, "the certificate is for another key");
    out_.chain = std::move(*chain);

    crypto::PathPolicy policy;
    policy.anchors = out_.anchors;
    policy.known_issuing = out_.issuing;
    policy.purpose = crypto::Purpose::kTlsClient;
    policy.now_s = clock_.unix_s();
    policy.network = network_.str();
    if (token_.role) policy.roles = {*token_.role};
    auto path = crypto::validate_path(out_.chain.front(),
                                      {out_.chain.begin() + 1, out_.chain.end()}, policy);
    if (!path) return fail(Errc::kMismatch, "certificate: " + path.error().text());
    if (path->id != token_.subject)
      return fail(Errc::kMismatch,
                  "the certificate is for " + path->id + ", the token for " + token_.subject);
    out_.controller = token_.issuer;
    out_.network = network_;
    out_.role = path->role;
    out_.id = path->id;
    out_.name = path->id;
    if (const auto* own = object_at(*data, "sally")) take_own(*own);
    finish(std::move(out_));
    return {};
  }

  /// Facts for convenience; nothing here decides whom we believe.
  void take_own(const boost::json::object& own) {
    if (const std::string name = text_at(own, "name"); !name.empty() && printable_utf8(name))
      out_.name = name;
    if (auto card = from_base64(text_at(own, "card"))) out_.card = std::move(*card);
    const auto* routers = own.if_contains("routers");
    if (routers == nullptr || !routers->is_array()) return;
    for (const auto& r : routers->get_array())
      if (r.is_string() && out_.routers.size() < 64 && parse_host_port(std::string(r.get_string())))
        out_.routers.emplace_back(r.get_string());
  }

  void finish(Result<Identity> result) {
    if (!done_) return;
    auto done = std::exchange(done_, nullptr);
    done(std::move(result));  // may destroy us
  }

  loop::Loop& loop_;
  EnrollOptions options_;
  const Clock& clock_;
  OnEnrolled done_;
  loop::Timer begin_;
  std::optional<Error> early_;
  Token token_;
  NetworkId network_;
  Identity out_;
  std::unique_ptr<http::Call> call_;
};

}  // namespace

std::unique_ptr<Enrolling> enroll(loop::Loop& loop, const std::string& token, EnrollOptions options,
                                  OnEnrolled done) {
  return std::make_unique<EnrollingImpl>(loop, token, std::move(options), std::move(done));
}

Result<Identity> blocking_enroll(const std::string& token, EnrollOptions options) {
  loop::Loop loop;
  std::optional<Result<Identity>> result;
  auto enrolling = enroll(loop, token, options, [&](Result<Identity> r) { result = std::move(r); });
  loop.run_until([&] { return result.has_value(); }, 4 * options.timeout_ms);
  if (!result) return fail(Errc::kBusy, "no answer in time", Source::kPeer, true);
  return std::move(*result);
}

}  // namespace sally::identity
