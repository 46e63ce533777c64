// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace sally::cli {

/// The command `sally`: options, commands, exit codes (errors.h).
int cli_main(int argc, char** argv);

}  // namespace sally::cli
