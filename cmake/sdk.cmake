# SPDX-License-Identifier: Apache-2.0
# The SDK as others link it: libsally.so.0 with nothing visible but sally_*, and its pkg-config file (package libsally-dev).
# The number of the soname changes with the first incompatible change of include/sally/ (scripts/abi).
set(SALLY_SOVERSION 0)
if(TARGET sally_sdk AND CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT SALLY_PORTABLE)
  set(script ${CMAKE_SOURCE_DIR}/packaging/dev/libsally.map)
  add_library(sally_shared SHARED ${CMAKE_SOURCE_DIR}/packaging/dev/libsally.cc)
  set_target_properties(sally_shared PROPERTIES OUTPUT_NAME sally VERSION ${PROJECT_VERSION} SOVERSION ${SALLY_SOVERSION}
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib LINK_DEPENDS ${script})
  # Its thread and its thread-local data outlive a dlclose.
  target_link_options(sally_shared PRIVATE -Wl,--version-script=${script} -Wl,-z,nodelete -Wl,-z,defs)
  target_link_libraries(sally_shared PRIVATE $<LINK_LIBRARY:WHOLE_ARCHIVE,sally_sdk>)
  set(SALLY_MULTIARCH ${CMAKE_LIBRARY_ARCHITECTURE})
  configure_file(${CMAKE_SOURCE_DIR}/packaging/dev/sally.pc.in ${CMAKE_BINARY_DIR}/lib/sally.pc @ONLY)
endif()
