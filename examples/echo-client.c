/* SPDX-License-Identifier: Apache-2.0
 * Says hello to an echo service through the C interface: echo-client-c IDENTITY SERVICE */
#include <sally/sally.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char** argv) {
  sally_options options = SALLY_OPTIONS_INIT;
  sally_context* context = NULL;
  sally_stream* stream = NULL;
  char buffer[256];
  int64_t n = 0;
  size_t got = 0;
  const char hello[] = "hello from C\n";
  if (argc != 3) {
    fprintf(stderr, "usage: echo-client-c IDENTITY SERVICE\n");
    return 2;
  }
  options.identity_path = argv[1];
  if (sally_open(&options, &context) != SALLY_OK ||
      sally_dial(context, argv[2], NULL, &stream) != SALLY_OK) {
    fprintf(stderr, "%s\n", sally_last_error());
    sally_close(context);
    return 1;
  }
  if (sally_write(stream, hello, strlen(hello)) > 0) sally_shutdown_write(stream);
  while (got < sizeof buffer && (n = sally_read(stream, buffer + got, sizeof buffer - got)) > 0)
    got += (size_t)n;
  fwrite(buffer, 1, got, stdout);
  sally_stream_close(stream);
  sally_close(context);
  return n < 0 ? 1 : 0;
}
