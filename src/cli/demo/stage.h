// SPDX-License-Identifier: Apache-2.0
#pragma once

// Internal to the demo: the network that its points are shown on.
#include <boost/json/object.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/demo/lab.h"

namespace sally::cli::demo {

// The hub is "the Internet": it routes, and controller and router live at one address of it.
inline constexpr char kHub[] = "10.91.0.1";
inline constexpr char kServer[] = "10.91.1.2";
inline constexpr char kControl[] = "10.91.3.2";

/// What is claimed, and what was measured of it.
struct Point {
  std::string id;
  std::string claim;
  bool pass = false;
  boost::json::object measured;
};

/// From here on Ctrl-C and SIGTERM are noted instead of ending the program.
void catch_signals();
bool interrupted();

std::int64_t now_ms();
std::optional<boost::json::object> parse(const std::string& text);

/// Controller, router, a dark MQTT broker and three devices, each where it belongs, in a temporary
/// folder: `pump-17` may reach the broker and so may `pump-18`, `stranger` may not.
/// Owner: the demo. Thread: the main one. Failure: kFailed with what a program said. All of it goes
/// with this object.
class Stage {
 public:
  Stage();
  ~Stage();
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  Status build();

  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] const std::string& program() const { return sally_; }
  [[nodiscard]] const Namespace& ns(const std::string& name) const { return *namespaces_.at(name); }
  /// A command that has to succeed in a namespace.
  Status must(const std::string& where, const std::vector<std::string>& args) const;
  /// `sally -o json ARGS` in a namespace; its output. A list of one is that one, of more {"items"}.
  [[nodiscard]] Result<boost::json::object> sally(const std::string& where,
                                                  std::vector<std::string> args,
                                                  std::int64_t timeout_ms = 30'000) const;
  /// The same as the admin.
  [[nodiscard]] Result<boost::json::object> admin(std::vector<std::string> args,
                                                  std::int64_t timeout_ms = 30'000) const;
  /// False when it did not come true in time, or Ctrl-C came.
  static bool until(const std::function<bool()>& done, std::int64_t timeout_ms);
  /// Whether a device's agent answers, and `is` holds for what it says.
  bool agent(const std::string& device, const std::string& where,
             const std::function<bool(const boost::json::object&)>& is) const;
  /// The end of a log.
  [[nodiscard]] std::string tail(const std::string& name) const;
  /// The value of a field in a log's last line with that message, or "-".
  [[nodiscard]] std::string field(const std::string& log, const std::string& message,
                                  const std::string& name) const;

 private:
  Status start(const std::string& where, const std::string& name,
               const std::vector<std::string>& args);
  Status links();
  Status network();
  Status devices();

  std::string sally_;
  std::string dir_;
  std::map<std::string, std::unique_ptr<Namespace>> namespaces_;
  std::vector<std::unique_ptr<Child>> children_;
};

/// `sally demo break cert`, `sally demo break clock`: what was made wrong is refused, and by what
/// name.
Status break_certificate(Stage& stage, Point& p);
Status break_clock(Stage& stage, Point& p);

}  // namespace sally::cli::demo
