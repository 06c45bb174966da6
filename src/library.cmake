# SPDX-License-Identifier: MIT OR Apache-2.0
# The public library: libbvmm.so and libbvmm.a, with no symbols but those of include/bvmm/.
# Included by the top CMakeLists.txt, when all its parts are there.
set(api_sources ${PROJECT_SOURCE_DIR}/src/vmm/api.c ${PROJECT_SOURCE_DIR}/src/vmm/api_config.c)
add_library(bvmm_shared SHARED ${api_sources})
target_link_libraries(bvmm_shared PRIVATE bvmm_core)
set_target_properties(bvmm_shared PROPERTIES OUTPUT_NAME bvmm VERSION ${PROJECT_VERSION} SOVERSION 0
  PUBLIC_HEADER "${PROJECT_SOURCE_DIR}/include/bvmm/bvmm.h;${PROJECT_SOURCE_DIR}/include/bvmm/error.h")

# One object of everything, in which what is hidden becomes local: a program that links the archive may
# have functions of the same names.
add_library(bvmm_api OBJECT ${api_sources})
target_link_libraries(bvmm_api PRIVATE bvmm_core)
set(static_library ${CMAKE_CURRENT_BINARY_DIR}/libbvmm.a)
set(static_object ${CMAKE_CURRENT_BINARY_DIR}/bvmm-all.o)
add_custom_command(OUTPUT ${static_library}
  COMMAND ${CMAKE_COMMAND} -E rm -f ${static_library} ${static_object}
  COMMAND ${CMAKE_LINKER} -r -o ${static_object} $<TARGET_OBJECTS:bvmm_api>
    $<TARGET_FILE:bvmm_core> $<TARGET_FILE:bvmm_init_blob> $<TARGET_FILE:bvmm_core>
  COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${static_object}
  COMMAND ${CMAKE_AR} rcs ${static_library} ${static_object}
  DEPENDS bvmm_api bvmm_core bvmm_init_blob COMMAND_EXPAND_LISTS VERBATIM
  COMMENT "libbvmm.a")
add_custom_target(bvmm_static ALL DEPENDS ${static_library})

# By where bvmm.pc lies: "cmake --install --prefix" may put all of it anywhere.
file(RELATIVE_PATH bvmm_pc_to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" bvmm_pc_to_prefix ${bvmm_pc_to_prefix})
configure_file(${PROJECT_SOURCE_DIR}/cmake/bvmm.pc.in ${CMAKE_CURRENT_BINARY_DIR}/bvmm.pc @ONLY)
install(TARGETS bvmm_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/bvmm)
install(FILES ${static_library} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/bvmm.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
