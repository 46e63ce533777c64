// SPDX-License-Identifier: Apache-2.0
// A library of libraries needs one file of its own; the code is that of src/sdk.
#include <sally/sally.h>
