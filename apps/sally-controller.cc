// SPDX-License-Identifier: Apache-2.0
// The controller process: `sally-controller init ...` makes a network, `sally-controller --dir D`
// runs it.
#include "controller/main.h"

int main(int argc, char** argv) {
  return sally::controller::controller_main(argc, argv);
}
