// SPDX-License-Identifier: Apache-2.0
#include "cli/enrolling.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <vector>

#include "base/fs.h"
#include "cli/errors.h"
#include "cli/supervisor.h"
#include "crypto/open_key.h"
#include "identity/enroll.h"
#include "identity/token.h"

namespace sally::cli {
namespace {

constexpr std::size_t kMaxTokenFile = 16'384;
constexpr std::size_t kRoom = 32'768;  // more than an identity takes

Result<std::string> read_token(const std::string& argument) {
  if (argument == "-") {
    if (::isatty(STDIN_FILENO) == 1) std::fputs("token, then Enter: ", stderr);
    std::string text;
    for (int ch = 0; text.size() <= kMaxTokenFile && (ch = std::getchar()) != EOF && ch != '\n';)
      text += static_cast<char>(ch);
    return text;
  }
  if (!fs::exists(argument)) return argument;
  return fs::read_text(argument, kMaxTokenFile);
}

Error wrong_kind(crypto::Role is, crypto::Role wanted, const char* used) {
  std::string text = "this token is for role " + std::string(crypto::role_name(is)) +
                     ", this command for role " + std::string(crypto::role_name(wanted)) + used;
  if (is == crypto::Role::kAdmin) text += "\nsally login TOKEN";
  if (is == crypto::Role::kDevice) text += "\nsally join TOKEN";
  return Error(Errc::kUsage, std::move(text), Source::kConfig);
}

Error in_the_way(const std::string& path, const std::string& whose) {
  return Error(Errc::kConflict,
               path + " exists: this folder belongs to " + whose +
                   " already\nname another folder with --dir",
               Source::kConfig);
}

// What is in the way of the new file: nothing, or the same identity by what the token says.
Result<std::optional<identity::Identity>> free_for(const std::string& path,
                                                   const identity::Token& token) {
  if (!fs::exists(path)) return std::nullopt;
  auto now = identity::load(path, identity::Files::kLeaveHardware);
  if (!now) return fail(in_the_way(path, "another identity"));
  if (now->id != token.subject || token.network.str() != now->network.str())
    return fail(in_the_way(path, now->name));
  return std::optional(std::move(*now));
}

// What a token says nobody has signed for us: a new identity replaces an old one only where the
// same authorities vouch for it.
bool same_identity(const identity::Identity& old, const identity::Identity& fresh) {
  return old.id == fresh.id && old.role == fresh.role && old.network == fresh.network &&
         std::ranges::all_of(fresh.anchors, [&](const auto& anchor) {
           return std::ranges::any_of(old.anchors,
                                      [&](const auto& a) { return a.der() == anchor.der(); });
         });
}

Result<identity::Identity> enroll_in_folder(const std::string& path, const identity::Token& token,
                                            crypto::Role role, const std::string& key) {
  TRY_ASSIGN(const auto old, free_for(path, token));
  // A token works once: better to know now that what it brings can be kept.
  if (auto ok = fs::room_for(path, kRoom); !ok)
    return fail(std::move(ok).error().at("the token was not used"));
  if (old) {
    if (auto free = fs::FileLock::take(path); !free)
      return fail(std::move(free).error().at("the token was not used"));
  }
  identity::EnrollOptions options;
  if (!key.empty()) {
    auto opened = crypto::open_or_make_key(key, crypto::KeyType::kP256);
    if (!opened) return fail(std::move(opened).error().at("the token was not used"));
    options.key = std::move(*opened);
  }
  TRY_ASSIGN(auto identity, identity::blocking_enroll(token.text, std::move(options)));
  if (identity.role != role) return fail(wrong_kind(identity.role, role, ""));
  if (old && !same_identity(*old, identity)) return fail(in_the_way(path, old->name));
  TRY(identity::save(identity, path));
  return identity;
}

// The folders of a path that are not there, the innermost first.
std::vector<std::string> missing_folders(std::string dir) {
  std::vector<std::string> all;
  while (!dir.empty() && !fs::exists(dir)) {
    all.push_back(dir);
    dir.resize(dir.find_last_of('/') == std::string::npos ? 0 : dir.find_last_of('/'));
  }
  return all;
}

}  // namespace

Result<identity::Identity> enroll_into(const std::string& dir, const std::string& file,
                                       const std::string& argument, crypto::Role role,
                                       const std::string& key) {
  std::string name;
  if (key != "file") {
    TRY_ASSIGN(name, crypto::hardware_name(key, dir));
  }
  TRY_ASSIGN(const auto text, read_token(argument));
  TRY_ASSIGN(const auto token, identity::parse_token(text));
  // Only a hint, nothing is verified yet: what comes back is checked again.
  if (token.role && *token.role != role)
    return fail(wrong_kind(*token.role, role, "; it was not used"));
  const std::string path = dir + "/" + file;
  TRY(free_for(path, token));  // before anything is made; asked again under the lock
  const auto missing = missing_folders(dir);
  TRY(fs::make_dirs(dir));
  TRY(fs::not_shared(dir));
  if (::access(dir.c_str(), W_OK | X_OK) != 0)
    return fail(Errc::kFailed,
                "cannot write in " + dir + ": " + std::strerror(errno) + "; the token was not used",
                Source::kConfig);
  TRY_ASSIGN(const auto one_at_a_time, FolderLock::take(path + ".lock"));
  auto identity = enroll_in_folder(path, token, role, name);
  if (!identity && !missing.empty()) {
    ::unlink((path + ".lock").c_str());
    ::unlink((dir + "/key.tpm").c_str());  // useless without the TPM, and without a certificate
    for (const auto& folder : missing) ::rmdir(folder.c_str());
  }
  return identity;
}

}  // namespace sally::cli
