# SPDX-License-Identifier: Apache-2.0
# The portable build: everything but the C library comes along, and of that one only what glibc 2.36 has. What Debian has
# as a static library goes into the programs, the rest lies in lib/ beside bin/ (scripts/package).
option(SALLY_PORTABLE "Programs that run on other distributions" OFF)
if(SALLY_PORTABLE)
  set(OPENSSL_USE_STATIC_LIBS TRUE)
  set(CMAKE_DISABLE_FIND_PACKAGE_PkgConfig TRUE)  # from it FindOpenSSL learns of ZLIB::ZLIB, which nobody has
  # libcrypto.a wants these two; Debian has them as shared libraries without a linker name.
  link_libraries(-l:libzstd.so.1 -l:libz.so.1)
  add_link_options(-static-libstdc++ -static-libgcc -Wl,--as-needed -Wl,--wrap=fmod -Wl,-z,pack-relative-relocs)
  add_compile_definitions(FMT_HEADER_ONLY)  # Debian has it as a shared library only, which wants the libstdc++ of Debian 13
  set(CMAKE_BUILD_RPATH "$ORIGIN/../lib")
  add_library(sally_glibc OBJECT ${CMAKE_SOURCE_DIR}/packaging/portable/glibc.cc)
  target_compile_options(sally_glibc PRIVATE -Wno-error)
endif()
