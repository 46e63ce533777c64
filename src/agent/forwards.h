// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sally/sally.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "loop/loop.h"
#include "loop/net.h"

namespace sally::agent {

/// Local ports that lead to services: every connection becomes a stream of its own.
/// Owner: the Agent. Thread: its loop's. Failure: a dial that fails resets the local connection,
/// which is the only thing a TCP client understands; the reason is in the log and in the status.
class Forwards {
 public:
  static constexpr std::size_t kMax = 256;

  /// `path`: where they are kept across restarts; empty keeps nothing.
  Forwards(loop::Loop& loop, sally_context* ctx, std::string path);
  ~Forwards();
  Forwards(const Forwards&) = delete;
  Forwards& operator=(const Forwards&) = delete;

  struct Entry {
    std::string service;
    HostPort listen;  ///< the port is the real one
    std::uint64_t connections = 0;
    std::uint64_t failures = 0;
    std::string last_error;
  };
  /// Makes those of the file again. One whose port is taken stays in the list with its error; add()
  /// tries it again.
  Status load();
  /// Port 0 chooses one. kForward: taken, or the same port serves something else. Here and in
  /// remove(): what cannot be written to the file is refused and changes nothing.
  Result<Entry> add(const std::string& service, const HostPort& listen);
  /// Those to `service`, or only the one at `listen`. kNoForward: nothing there.
  Status remove(const std::string& service, const std::optional<HostPort>& listen);
  [[nodiscard]] std::vector<Entry> list() const;

 private:
  struct Forward;
  struct Dialing;
  using Map = std::map<std::uint64_t, std::unique_ptr<Forward>>;
  Status listen_on(Forward& forward);
  /// All but those `without` is true for; none may be left out with an empty one.
  Status save(const std::function<bool(const Map::value_type&)>& without) const;
  void accept(Forward& forward, loop::Fd fd);
  static void on_dialed(void* user, int code, const char* text, sally_stream* stream);

  loop::Loop& loop_;
  sally_context* ctx_;
  std::string path_;
  Map all_;
  std::uint64_t next_ = 1;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sally::agent
