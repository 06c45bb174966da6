# SPDX-License-Identifier: MIT OR Apache-2.0
# What only the aarch64 machine links: libfdt, which Debian ships without a pkg-config file.
find_path(FDT_INCLUDE_DIR libfdt.h REQUIRED)
find_library(FDT_LIBRARY fdt REQUIRED)
target_include_directories(bvmm_core SYSTEM PRIVATE ${FDT_INCLUDE_DIR})
target_link_libraries(bvmm_core PUBLIC ${FDT_LIBRARY})
