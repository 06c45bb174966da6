# SPDX-License-Identifier: MIT OR Apache-2.0
# Warnings, sanitizers and hardening that every target of the project gets.
add_library(bvmm_flags INTERFACE)
target_compile_definitions(bvmm_flags INTERFACE _GNU_SOURCE)
target_compile_options(bvmm_flags INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes
  -Wmissing-prototypes -Wcast-qual -Wundef -Wvla -Wformat=2 -Wswitch-enum -Wnull-dereference
  -fno-strict-aliasing -fno-common -fvisibility=hidden)
if(CMAKE_C_COMPILER_ID STREQUAL "Clang")
  # clang 14 calls ## __VA_ARGS__ and empty variadic arguments of the libraries' macros extensions.
  target_compile_options(bvmm_flags INTERFACE -Wno-gnu-zero-variadic-macro-arguments)
endif()
if(BVMM_SANITIZE STREQUAL "address")
  target_compile_options(bvmm_flags INTERFACE -fsanitize=address,undefined -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(bvmm_flags INTERFACE -fsanitize=address,undefined)
elseif(BVMM_SANITIZE STREQUAL "thread")
  target_compile_options(bvmm_flags INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(bvmm_flags INTERFACE -fsanitize=thread)
  if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    # TSan does not model fences; those towards the guest have no second thread of ours anyway.
    target_compile_options(bvmm_flags INTERFACE -Wno-tsan)
  endif()
elseif(BVMM_SANITIZE)
  message(FATAL_ERROR "BVMM_SANITIZE is '${BVMM_SANITIZE}'; expected address, thread, or nothing")
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(bvmm_flags INTERFACE -fstack-protector-strong -fstack-clash-protection
    -D_FORTIFY_SOURCE=2)
  target_link_options(bvmm_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack)
endif()
