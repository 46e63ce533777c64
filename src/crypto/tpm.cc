// SPDX-License-Identifier: Apache-2.0
#include "crypto/tpm.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>

#include "base/fs.h"
#include "crypto/tpm_wire.h"

namespace sally::crypto {
namespace {

constexpr int kTries = 20;
constexpr useconds_t kPauseUs = 100'000;
constexpr std::size_t kMaxFile = 16'384;

// Codes of the TPM (part 2, 6.6): a format-one code says parameter, handle or session in its other
// bits.
constexpr std::uint32_t kInitialize = 0x100;
constexpr std::uint32_t kObjectMemory = 0x902;
constexpr std::uint32_t kYielded = 0x908;
constexpr std::uint32_t kTesting = 0x90A;
constexpr std::uint32_t kLockout = 0x921;
constexpr std::uint32_t kRetry = 0x922;
constexpr bool is_handle_code(std::uint32_t rc) {
  return (rc & 0x0BFU) == 0x08BU || (rc & 0xFFFU) == 0x910U;  // HANDLE, REFERENCE_H0
}
constexpr bool is_auth_code(std::uint32_t rc) {
  return (rc & 0x0BFU) == 0x08EU || (rc & 0x0BFU) == 0x0A2U;  // AUTH_FAIL, BAD_AUTH
}

std::string hex_code(std::uint32_t rc) {
  Bytes b;
  put_big(b, rc, 4);
  return "0x" + to_hex(b);
}

std::unexpected<Error> refused(const std::string& what, std::uint32_t rc) {
  std::string why = "the TPM says " + hex_code(rc);
  if (rc == kObjectMemory)
    why += ": its memory for keys is full\nuse /dev/tpmrm0, or free it: tpm2_flushcontext -t";
  if (rc == kInitialize) why += ": it was not started";
  if (rc == kLockout) why += ": it is locked out after wrong passwords";
  if (is_auth_code(rc))
    why += ": it wants a password for its storage hierarchy, which this program does not have";
  return fail(Errc::kKeyOperation, what + ": " + why, Source::kLocal);
}

/// A connection to a TPM. Owned by one token, one thread at a time. A failure ends it: an answer
/// that comes too late would be taken for that of the next command.
class Device {
 public:
  static Result<std::unique_ptr<Device>> open(const std::string& path,
                                              int answer_ms = kTpmAnswerMs) {
    const auto missing = [&](const char* why) {
      return fail(
          Errc::kTokenMissing,
          "TPM " + path + ": " + why +
              (errno == EACCES ? "\nlet this user use it: usermod -aG tss USER"
                               : "\nsee that the machine has a TPM 2.0 and that it is on, or "
                                 "name its device: tpm:...?device=/dev/..."),
          Source::kConfig, true);
    };
    struct stat st{};
    if (::stat(path.c_str(), &st) != 0) return missing(std::strerror(errno));
    int fd = -1;
    if (S_ISSOCK(st.st_mode)) {
      sockaddr_un at{};
      at.sun_family = AF_UNIX;
      if (path.size() >= sizeof at.sun_path) return missing("the path is too long");
      path.copy(at.sun_path, path.size());
      fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (fd >= 0 && ::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) {
        const int why = errno;
        ::close(fd);
        errno = why;
        fd = -1;
      }
    } else {
      fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    }
    if (fd < 0) return missing(std::strerror(errno));
    return std::unique_ptr<Device>(new Device(fd, answer_ms));
  }
  ~Device() { ::close(fd_); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// The answer, whatever it says; kTokenMissing when there is none.
  Result<tpm::Answer> call(const Bytes& command, bool makes_handle = false) {
    for (int i = 0;; ++i) {
      TRY_ASSIGN(const Bytes raw, exchange(command));
      TRY_ASSIGN(auto answer, tpm::parse_answer(raw, makes_handle));
      const bool busy = answer.code == kRetry || answer.code == kYielded || answer.code == kTesting;
      if (!busy || i == kTries) return answer;
      ::usleep(kPauseUs);  // NOLINT(sally-sleep): the TPM asked for it
    }
  }
  void flush(std::uint32_t handle) { (void)call(tpm::flush(handle)); }
  [[nodiscard]] bool broken() const { return broken_; }

 private:
  Device(int fd, int answer_ms) : fd_(fd), answer_ms_(answer_ms) {}
  static std::unexpected<Error> gone(const char* why) {
    return fail(Errc::kTokenMissing, std::string("the TPM went away: ") + why, Source::kLocal,
                true);
  }
  Result<Bytes> exchange(const Bytes& command) {
    if (std::exchange(broken_, true)) return gone("it did not answer before");
    // A device takes a command in one write; a socket's buffer is larger than any.
    const bool socket = is_socket();
    const ssize_t sent = socket ? ::send(fd_, command.data(), command.size(), MSG_NOSIGNAL)
                                : ::write(fd_, command.data(), command.size());
    if (sent != static_cast<ssize_t>(command.size())) return gone(std::strerror(errno));
    Bytes in(tpm::kMaxMessage);
    std::size_t got = 0;
    std::size_t size = 0;
    do {
      pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
      const int ready = ::poll(&wait, 1, answer_ms_);
      if (ready < 0 && errno == EINTR) continue;
      if (ready <= 0) return gone("no answer");
      const ssize_t n = ::read(fd_, in.data() + got, in.size() - got);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return gone(n == 0 ? "closed" : std::strerror(errno));
      got += static_cast<std::size_t>(n);
      if (got >= 10) {
        size = tpm::message_size(in);
        if (size == 0 || size < got) return gone("an answer of a wrong size");
      }
    } while (got < 10 || got < size);
    in.resize(size);
    broken_ = false;
    return in;
  }
  [[nodiscard]] bool is_socket() const {
    struct stat st{};
    return ::fstat(fd_, &st) == 0 && S_ISSOCK(st.st_mode);
  }
  const int fd_;
  const int answer_ms_;
  bool broken_ = false;
};

// A key under whose wrapping ours lies; a made one is taken out again.
class Parent {
 public:
  static Result<std::unique_ptr<Parent>> open(Device& device, std::uint32_t handle) {
    if (handle != tpm::kOwner) return std::unique_ptr<Parent>(new Parent(device, handle, false));
    TRY_ASSIGN(const auto made, device.call(tpm::create_primary(), true));
    if (made.code != 0) return refused("storage root key", made.code);
    return std::unique_ptr<Parent>(new Parent(device, made.handle, true));
  }
  ~Parent() {
    if (made_) device_.flush(handle_);
  }
  Parent(const Parent&) = delete;
  Parent& operator=(const Parent&) = delete;
  [[nodiscard]] std::uint32_t handle() const { return handle_; }

 private:
  Parent(Device& device, std::uint32_t handle, bool made)
      : device_(device), handle_(handle), made_(made) {}
  Device& device_;
  std::uint32_t handle_;
  bool made_;
};

Status stays(const tpm::Public& pub) {
  constexpr std::uint32_t kMust = tpm::kFixedTpm | tpm::kFixedParent | tpm::kSensitiveDataOrigin |
                                  tpm::kUserWithAuth | tpm::kSign;
  // A restricted one signs only what the TPM itself says.
  if ((pub.attributes & kMust) == kMust && (pub.attributes & tpm::kRestricted) == 0) return {};
  return fail(
      Errc::kKeyMayLeave,
      "this TPM key was not made in the TPM, may leave it, or is not for signatures (attributes " +
          hex_code(pub.attributes) + ")",
      Source::kConfig);
}

class TpmToken final : public Token {
 public:
  TpmToken(KeyName name, int answer_ms, std::optional<tpm::KeyFile> file, PublicKey pub)
      : name_(std::move(name)),
        answer_ms_(answer_ms),
        file_(std::move(file)),
        public_(std::move(pub)) {}
  ~TpmToken() override { let_go(); }

  [[nodiscard]] const PublicKey& public_key() const override { return public_; }

  [[nodiscard]] Result<Bytes> sign_digest(ByteView digest) const override {
    const std::lock_guard lock(mutex_);
    auto signature = sign_once(digest);
    // It was reset, or its resource manager started again: once more, from the beginning.
    if (!signature && signature.error().retry()) signature = sign_once(digest);
    return signature;
  }

  /// That the key can be had. Also the first load, whose time nobody waits for later.
  [[nodiscard]] Status load() const {
    const std::lock_guard lock(mutex_);
    return ready();
  }

 private:
  Result<Bytes> sign_once(ByteView digest) const {
    TRY(ready());
    auto answer = device_->call(tpm::sign(handle_, digest));
    if (!answer) {
      device_.reset();
      return fail(std::move(answer).error());
    }
    if (is_handle_code(answer->code)) {
      let_go();
      return fail(Errc::kKeyMissing, "the key is not in the TPM any more", Source::kLocal, true);
    }
    if (answer->code != 0) return refused("signing", answer->code);
    return tpm::parse_signature(answer->parameters);
  }

  Status ready() const {
    if (device_ != nullptr && !device_->broken()) return {};
    device_.reset();
    TRY_ASSIGN(auto device, Device::open(name_.device, answer_ms_));
    if (file_) {
      TRY_ASSIGN(const auto parent, Parent::open(*device, file_->parent));
      TRY_ASSIGN(const auto loaded,
                 device->call(tpm::load(parent->handle(), file_->pub, file_->priv), true));
      if (is_handle_code(loaded.code))
        return fail(Errc::kKeyMissing,
                    "the TPM has no storage root key at " + hex_code(file_->parent) + " any more",
                    Source::kConfig);
      // Not made by this TPM, or it was cleared since.
      if (loaded.code != 0 && loaded.code != kObjectMemory && loaded.code != kLockout &&
          loaded.code != kInitialize)
        return fail(Errc::kKeyMissing,
                    name_.path + " is not a key of the TPM " + name_.device + " (" +
                        hex_code(loaded.code) +
                        ")\nit was made by another one, or this one was "
                        "cleared: enrol again",
                    Source::kConfig);
      if (loaded.code != 0) return refused("loading the key", loaded.code);
      handle_ = loaded.handle;
    } else {
      handle_ = name_.handle;
    }
    device_ = std::move(device);
    return {};
  }

  void let_go() const {
    if (device_ != nullptr && file_) device_->flush(handle_);
    device_.reset();
  }

  const KeyName name_;
  const int answer_ms_;
  const std::optional<tpm::KeyFile> file_;
  const PublicKey public_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<Device> device_;
  mutable std::uint32_t handle_ = 0;
};

}  // namespace

Result<std::unique_ptr<Token>> open_tpm(const KeyName& name, int answer_ms) {
  std::optional<tpm::KeyFile> file;
  Bytes area;
  if (name.handle == 0) {
    auto text = fs::read_text(name.path, kMaxFile);
    if (!text)
      return fail(Errc::kKeyMissing, "TPM key file: " + text.error().text(), Source::kConfig);
    TRY_ASSIGN(file, tpm::parse_pem(*text));
    area = file->pub;
  } else {
    TRY_ASSIGN(const auto device, Device::open(name.device, answer_ms));
    TRY_ASSIGN(const auto answer, device->call(tpm::read_public(name.handle)));
    if (is_handle_code(answer.code))
      return fail(Errc::kKeyMissing,
                  "the TPM has no key " + hex_code(name.handle) +
                      "\ntpm2_getcap handles-persistent "
                      "shows what it has",
                  Source::kConfig);
    if (answer.code != 0) return refused("reading the key", answer.code);
    TRY_ASSIGN(area, tpm::parse_read_public(answer.parameters));
  }
  TRY_ASSIGN(auto pub, tpm::parse_public(area));
  TRY(stays(pub));
  auto token = std::make_unique<TpmToken>(name, answer_ms, std::move(file), std::move(pub.key));
  TRY(token->load());
  return token;
}

Status make_tpm(const KeyName& name) {
  if (name.handle != 0)
    return fail(
        Errc::kBadKeyName,
        "a new TPM key is kept in a file: tpm:/path; persistent ones are made with tpm2_create "
        "and tpm2_evictcontrol",
        Source::kConfig);
  if (fs::exists(name.path))
    return fail(Errc::kKeyOperation, name.path + " exists", Source::kConfig);
  TRY_ASSIGN(const auto device, Device::open(name.device));
  // The machine's own storage root key where it has one, else the one that every program derives.
  TRY_ASSIGN(const auto root, device->call(tpm::read_public(tpm::kStorageRoot)));
  tpm::KeyFile file;
  tpm::Answer made;
  made.code = kRetry;
  for (const std::uint32_t parent : {tpm::kStorageRoot, tpm::kOwner}) {
    if (parent == tpm::kStorageRoot && root.code != 0) continue;
    TRY_ASSIGN(const auto under, Parent::open(*device, parent));
    TRY_ASSIGN(made, device->call(tpm::create_key(under->handle())));
    file.parent = parent;
    if (made.code == 0) break;
  }
  if (made.code != 0) return refused("making a key", made.code);
  TRY_ASSIGN(auto created, tpm::parse_created(made.parameters));
  TRY_ASSIGN(const auto pub, tpm::parse_public(created.pub));
  TRY(stays(pub));
  file.pub = std::move(created.pub);
  file.priv = std::move(created.priv);
  return fs::write_file_atomic(name.path, as_bytes(tpm::to_pem(file)), 0600);
}

}  // namespace sally::crypto
