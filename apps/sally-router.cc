// SPDX-License-Identifier: Apache-2.0
#include "router/main.h"

int main(int argc, char** argv) {
  return sally::router::router_main(argc, argv);
}
