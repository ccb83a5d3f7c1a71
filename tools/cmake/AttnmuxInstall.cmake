# What `cmake --install build --prefix P` puts under P. The tree may be moved: everything in it finds the rest by
# $ORIGIN, and LibTorch, which stays where it is, by its folder.
include(CMakePackageConfigHelpers)

set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/attnmux)

install(TARGETS attnmux_core EXPORT attnmuxTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
set_target_properties(attnmux_core PROPERTIES EXPORT_NAME core)
set_target_properties(attnmux attnmux-check PROPERTIES BUILD_WITH_INSTALL_RPATH ON
  INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${ATTNMUX_TORCH_RPATH}")
install(TARGETS attnmux attnmux-check RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/core/include/attnmux DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${ATTNMUX_INTERFACE_HASH_HEADER} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/attnmux)

# The plugin SDK: the package, and a plugin to start from.
install(EXPORT attnmuxTargets NAMESPACE attnmux:: DESTINATION ${_package})
configure_package_config_file(${PROJECT_SOURCE_DIR}/plugins/sdk/attnmuxConfig.cmake.in
  ${PROJECT_BINARY_DIR}/attnmuxConfig.cmake INSTALL_DESTINATION ${_package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/attnmuxConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/attnmuxConfig.cmake
  ${PROJECT_BINARY_DIR}/attnmuxConfigVersion.cmake
  ${PROJECT_SOURCE_DIR}/tools/cmake/AttnmuxTorch.cmake
  ${PROJECT_SOURCE_DIR}/tools/cmake/AttnmuxPlugin.cmake
  ${PROJECT_SOURCE_DIR}/tools/cmake/AttnmuxCheckExports.cmake
  ${PROJECT_SOURCE_DIR}/tools/cmake/plugin_exports.map
  DESTINATION ${_package})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/plugins/examples DESTINATION ${CMAKE_INSTALL_DATADIR}/attnmux)
