// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace sally::router {

/// Everything behind main(): options, signals, exit codes (0 ok, 1 failed, 2 usage).
///
///   sally-router --dir D [--listen ADDRESS:PORT] [--controller HOST:PORT] [--workers N]
///   [--log LEVEL|json]
///     D holds identity.json, a router's identity, and keeps the replicated state. Prints "ready
///     <port>" on standard output when it listens; ends on SIGTERM or SIGINT.
int router_main(int argc, char** argv);

}  // namespace sally::router
