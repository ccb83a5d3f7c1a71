# attnmux_add_plugin(NAME SRCS...)
function(attnmux_add_plugin name)
  add_library(${name}_plugin MODULE ${ARGN})
  set_target_properties(${name}_plugin PROPERTIES PREFIX "" OUTPUT_NAME ${name}
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/attnmux/plugins)
  target_link_libraries(${name}_plugin PRIVATE attnmux::core)
endfunction()
