// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "cli/commands.h"

namespace sally::cli::demo {

struct Options {
  bool json = false;
  bool keep = false;
  std::string broken;  ///< "cert", "clock": what is made wrong, instead of the points
};

/// `sally demo`: a whole network in namespaces of its own, in a temporary folder; proves each point
/// by measurement; leaves nothing behind. Fails when a point does not hold.
Status run(const Common& common, const Options& options);

/// `sally scan ADDRESS`: all 65,535 TCP ports by connecting, 200 UDP ports by asking; prints one
/// JSON object
/// {"tcp_open":[...],"tcp_scanned":n,"udp_answered":[...],"udp_scanned":n}.
Status scan(const std::string& address);

/// `sally wiretap TEXT`: reads every packet of this network namespace until standard input ends;
/// prints {"packets":n,"bytes":n, "seen":n, "loopback_seen":n, "tls13":n}.
Status wiretap(const std::string& text);

}  // namespace sally::cli::demo
