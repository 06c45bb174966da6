# SPDX-License-Identifier: MIT OR Apache-2.0
# Cross-compiles for aarch64 with Debian's gcc-aarch64-linux-gnu, against the libraries of tools/sysroot-aarch64.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

set(BVMM_SYSROOT "" CACHE PATH "Sysroot with arm64 libraries; empty: made by tools/sysroot-aarch64")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES BVMM_SYSROOT)
if(NOT BVMM_SYSROOT)
  execute_process(COMMAND ${CMAKE_CURRENT_LIST_DIR}/../tools/sysroot-aarch64
    OUTPUT_VARIABLE sysroot OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(BVMM_SYSROOT ${sysroot} CACHE PATH "" FORCE)
endif()
set(CMAKE_SYSROOT ${BVMM_SYSROOT})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# pkg-config's files of the sysroot only, with its directory before every path.
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${BVMM_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${BVMM_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${BVMM_SYSROOT}/usr/share/pkgconfig)
