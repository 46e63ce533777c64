// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace sally::controller {

/// Everything behind main(): options, signals, exit codes (0 ok, 1 failed, 2 usage).
///
///   sally-controller init --dir D --name NET --host HOST [--host H2] [--port 1280] [--rest-key
///   p256|rsa]
///                         [--router-name router-1] [--router HOST:PORT] [--router-identity FILE]
///                         [--admin-name root] --admin-identity FILE
///     prints one JSON object {"network","url","root_sha256","admin_id","router_id"}
///   sally-controller --dir D [--listen ADDRESS:PORT] [--log LEVEL|json]
///     prints "ready <port>" on standard output when it serves; ends on SIGTERM or SIGINT
int controller_main(int argc, char** argv);

}  // namespace sally::controller
