// SPDX-License-Identifier: Apache-2.0
// Debian 13's static libraries name a few functions by versions that only its own C library has. In
// the portable build these stand in for them, so that the programs start on glibc 2.36 (Debian 12)
// and later. The C23 forms differ from the old ones only in that they also read 0b numbers.
#if defined(__x86_64__)
#define SALLY_GLIBC_BASE "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define SALLY_GLIBC_BASE "GLIBC_2.17"
#endif

extern "C" {
// By their assembler names: the header would lead back to the new forms.
long sally_strtol(const char*, char**, int) __asm__("strtol");
long long sally_strtoll(const char*, char**, int) __asm__("strtoll");
unsigned long sally_strtoul(const char*, char**, int) __asm__("strtoul");
unsigned long long sally_strtoull(const char*, char**, int) __asm__("strtoull");

long __isoc23_strtol(const char* text, char** end, int base) {
  return sally_strtol(text, end, base);
}
long long __isoc23_strtoll(const char* text, char** end, int base) {
  return sally_strtoll(text, end, base);
}
unsigned long __isoc23_strtoul(const char* text, char** end, int base) {
  return sally_strtoul(text, end, base);
}
unsigned long long __isoc23_strtoull(const char* text, char** end, int base) {
  return sally_strtoull(text, end, base);
}

__asm__(".symver sally_fmod,fmod@" SALLY_GLIBC_BASE);
double sally_fmod(double, double);
double __wrap_fmod(double x, double y) {
  return sally_fmod(x, y);
}
}
