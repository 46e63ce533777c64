// SPDX-License-Identifier: Apache-2.0
// What flows (top) and what flowed (usage).
#include <fmt/core.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/fleet.h"
#include "http/message.h"

namespace sally::cli {
namespace {

namespace json = boost::json;

constexpr std::int64_t kDayMs = 86'400'000;
constexpr int kRefreshMs = 1'000;

std::uint64_t count_of(const json::object& o, const char* name) {
  const auto* v = o.if_contains(name);
  if (v == nullptr) return 0;
  if (v->is_uint64()) return v->get_uint64();
  return v->is_int64() && v->get_int64() > 0 ? static_cast<std::uint64_t>(v->get_int64()) : 0;
}
double number_of(const json::object& o, const char* name) {
  const auto* v = o.if_contains(name);
  if (v == nullptr) return 0;
  return v->is_double() ? v->get_double() : static_cast<double>(count_of(o, name));
}

std::string bytes_text(std::uint64_t n) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  auto v = static_cast<double>(n);
  std::size_t unit = 0;
  while (v >= 1000 && unit + 1 < std::size(kUnits)) {
    v /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", n) : fmt::format("{:.1f} {}", v, kUnits[unit]);
}

std::string megabits(double bytes_per_s) {
  return fmt::format("{:.2f}", bytes_per_s * 8 / 1e6);
}

/// "7d" or a date, as a date. nullopt for anything else.
std::optional<std::string> date_of(const std::string& text) {
  if (text.size() > 1 && text.back() == 'd') {
    const auto days = parse_u64(std::string_view(text).substr(0, text.size() - 1));
    if (!days || *days > 10'000) return std::nullopt;
    const std::int64_t then = system_clock().unix_ms() - static_cast<std::int64_t>(*days) * kDayMs;
    return format_time(std::max<std::int64_t>(0, then)).substr(0, 10);
  }
  if (text.size() != 10 || !parse_time(text + "T00:00:00Z")) return std::nullopt;
  return text;
}

volatile std::sig_atomic_t ended = 0;
void on_end(int) {
  ended = 1;
}

/// The whole screen for us, until we go: on every way out but SIGKILL the terminal is as it was.
class Screen {
 public:
  Screen() {
    raw_ = ::isatty(STDIN_FILENO) == 1 && ::tcgetattr(STDIN_FILENO, &before_) == 0;
    if (raw_) {
      termios quiet = before_;
      quiet.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG);
      raw_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &quiet) == 0;
    }
    before_stop_ = std::signal(SIGTSTP, SIG_IGN);  // stopped, it would leave a raw terminal
    put("\033[?1049h\033[?25l");
  }
  ~Screen() {
    // The last thing that anybody sees: whoever waits for it finds the terminal given back.
    if (raw_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    put("\033[?25h\033[?1049l");
    std::signal(SIGTSTP, before_stop_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  static void put(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
  /// Lines from the top, cut to what is there.
  static void show(const std::vector<std::string>& lines) {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) size = {24, 80, 0, 0};
    std::string out = "\033[H";
    for (std::size_t i = 0; i < lines.size() && i < size.ws_row; ++i)
      out += cut(lines[i], size.ws_col) + "\033[K" + (i + 1 < size.ws_row ? "\r\n" : "");
    put(out + "\033[J");
  }

 private:
  static std::string cut(const std::string& line, std::size_t columns) {
    std::size_t at = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
      if ((static_cast<unsigned char>(line[i]) & 0xc0U) == 0x80U) continue;
      if (at++ == columns) return line.substr(0, i);
    }
    return line;
  }
  termios before_{};
  void (*before_stop_)(int) = SIG_DFL;
  bool raw_ = false;
};

// What a terminal that knows no UTF-8 can show.
bool utf8_terminal() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): one thread
    if (value == nullptr || *value == '\0') continue;
    const std::string v = lower(value);
    return v.find("utf-8") != std::string::npos || v.find("utf8") != std::string::npos;
  }
  return false;
}
std::string shown(const std::string& name, bool utf8) {
  std::string out = printable_utf8(name) ? name : json_quote(name);
  if (!utf8)
    for (char& c : out)
      if (static_cast<unsigned char>(c) >= 0x7f || static_cast<unsigned char>(c) < ' ') c = '?';
  return out.empty() ? "-" : out;
}

std::string padded(const std::string& text, std::size_t columns) {
  const auto width = static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }));
  return width < columns ? text + std::string(columns - width, ' ') : text;
}

const json::array& array_of(const json::object& o, const char* name) {
  static const json::array none;
  const auto* v = o.if_contains(name);
  return v != nullptr && v->is_array() ? v->get_array() : none;
}

std::vector<std::string> top_lines(const json::object& live) {
  const bool utf8 = utf8_terminal();
  std::vector<std::string> out;
  out.push_back("sally top  " + shown(text_of(live, "time"), utf8));
  out.emplace_back();
  out.push_back(padded("ROUTER", 24) + fmt::format("{:>7} {:>9} {:>12} {:>12} {:>6} {:>10}",
                                                   "LANES", "CIRCUITS", "IN Mbit/s", "OUT Mbit/s",
                                                   "CPU", "MEMORY"));
  for (const auto& v : array_of(live, "routers")) {
    const auto* r = v.if_object();
    if (r == nullptr) continue;
    const std::string name = padded(shown(text_of(*r, "name"), utf8), 24);
    if (!is_true(*r, "online")) {
      out.push_back(name + " not connected");
    } else if (!r->contains("lanes")) {
      out.push_back(name + " no report yet");
    } else {
      out.push_back(name +
                    fmt::format("{:>7} {:>9} {:>12} {:>12} {:>5.0f}% {:>10}", count_of(*r, "lanes"),
                                count_of(*r, "circuits"), megabits(number_of(*r, "in_per_s")),
                                megabits(number_of(*r, "out_per_s")), number_of(*r, "cpu") * 100,
                                bytes_text(count_of(*r, "rss_bytes"))));
    }
  }
  const auto table = [&](const char* title, const char* member) {
    out.emplace_back();
    out.push_back(padded(title, 24) +
                  fmt::format("{:>14} {:>17}", "SENT Mbit/s", "RECEIVED Mbit/s"));
    for (const auto& v : array_of(live, member)) {
      const auto* o = v.if_object();
      if (o == nullptr) continue;
      out.push_back(padded(shown(text_of(*o, "name"), utf8), 24) +
                    fmt::format("{:>14} {:>17}", megabits(number_of(*o, "sent_per_s")),
                                megabits(number_of(*o, "received_per_s"))));
    }
  };
  table("DEVICE", "devices");
  table("SERVICE", "services");
  return out;
}

/// False when somebody pressed q or wants the program to end.
bool wait_for_key(int ms, bool keyboard) {
  pollfd in{.fd = keyboard ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0};
  if (::poll(&in, 1, ms) > 0) {
    char key = 0;
    const auto n = ::read(STDIN_FILENO, &key, 1);
    constexpr char kCtrlC = 3;
    if (n <= 0 || key == 'q' || key == 'Q' || key == kCtrlC) return false;
  }
  return ended == 0;
}

}  // namespace

Status top(const Common& c, const TopOptions& options) {
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  const auto look = [&]() -> Result<json::object> {
    TRY_ASSIGN(auto live, fleet.get("/fleet/v1/live?limit=20"));
    if (!live.is_object()) return json::object();
    return std::move(live.get_object());
  };
  const bool people = c.out.for_people() && !options.json;
  const auto plain = [&](const json::object& live) {
    if (people) {
      for (const auto& line : top_lines(live)) c.out.say(line);
    } else {
      Screen::put(json::serialize(live) + "\n");
    }
  };
  struct sigaction action{};
  action.sa_handler = on_end;  // no SA_RESTART: a wait ends
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaction(signal, &action, nullptr);
  const bool tty = people && ::isatty(STDOUT_FILENO) == 1;
  if (options.once || !tty) {
    for (;;) {
      TRY_ASSIGN(const auto live, look());
      plain(live);
      if (options.once || !wait_for_key(kRefreshMs, false)) return {};
    }
  }
  // The first one outside the screen: what is wrong from the start is said where it stays.
  auto live = look();
  if (!live) return fail(live.error());
  const Screen screen;
  const bool keyboard = ::isatty(STDIN_FILENO) == 1;
  for (;;) {
    if (live) {
      auto lines = top_lines(*live);
      lines.front() += "  q quits";
      Screen::show(lines);
    } else {
      Screen::show({"sally top  q quits", "", shown(live.error().text(), utf8_terminal())});
    }
    if (!wait_for_key(kRefreshMs, keyboard)) return {};
    live = look();
  }
}

Status usage(const Common& c, const UsageOptions& options) {
  std::string query = "?limit=1000";
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) query += std::string("&") + name + "=" + http::percent_encode(value);
  };
  for (const auto& [name, text] :
       {std::pair{"from", &options.since}, std::pair{"to", &options.until}}) {
    if (text->empty()) continue;
    const auto date = date_of(*text);
    if (!date)
      return fail(Errc::kUsage, "'" + *text + "' is neither a date (2026-01-31) nor days (7d)",
                  Source::kConfig);
    add(name, *date);
  }
  add("device", options.device);
  add("service", options.service);
  if (options.by_day) add("by", "day");
  TRY_ASSIGN(const auto fleet, Fleet::open(context_dir(c.context)));
  json::array items;
  for (;;) {
    TRY_ASSIGN(const auto v,
               fleet.get("/fleet/v1/usage" + query + "&offset=" + std::to_string(items.size())));
    const auto* page = v.is_object() ? v.get_object().if_contains("items") : nullptr;
    if (page == nullptr || !page->is_array()) break;
    items.insert(items.end(), page->get_array().begin(), page->get_array().end());
    if (page->get_array().size() < 1000) break;
  }
  if (c.out.for_people()) {
    for (auto& v : items) {
      auto* o = v.if_object();
      if (o == nullptr) continue;
      (*o)["sent"] = bytes_text(count_of(*o, "sent"));
      (*o)["received"] = bytes_text(count_of(*o, "received"));
      (*o)["open_ms"] = fmt::format("{} s", count_of(*o, "open_ms") / 1000);
    }
  }
  std::vector<Column> columns = {
      {"DEVICE", "device_name"},     {"SERVICE", "service_name"},    {"SENT", "sent"},
      {"RECEIVED", "received"},      {"CIRCUITS", "circuits"},       {"OPEN", "open_ms"},
      {"DEVICE ID", "device", true}, {"SERVICE ID", "service", true}};
  if (options.by_day) columns.insert(columns.begin(), {"DAY", "day"});
  c.out.list(items, columns);
  return {};
}

}  // namespace sally::cli
