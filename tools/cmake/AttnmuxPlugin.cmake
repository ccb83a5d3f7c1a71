# attnmux_add_plugin(NAME SOURCES... [CUDART <major>] [NCCL <major>] [SM <list>])
#
# Target NAME: one plugin library, NAME.so, that exports its entry and nothing else. Written beside the core library's
# plugins in this tree, in the caller's binary folder elsewhere. CUDART, NCCL and SM say what it is built with; they go
# into its ABI tag. Used by this project and, installed, by others after find_package(attnmux).
#
#   attnmux_add_plugin(acme acme.cpp)
#   target_link_libraries(acme PRIVATE what_it_needs)

set(ATTNMUX_CMAKE_DIR ${CMAKE_CURRENT_LIST_DIR})

function(attnmux_add_plugin name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "CUDART;NCCL;SM" "")
  if(NOT arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "attnmux_add_plugin(${name}): no sources. Write attnmux_add_plugin(${name} ${name}.cpp).")
  endif()
  add_library(${name} MODULE ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE attnmux::core)
  target_compile_features(${name} PRIVATE cxx_std_20)
  set_target_properties(${name} PROPERTIES PREFIX "" SUFFIX ".so"
    CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  foreach(_field CUDART NCCL)
    if(DEFINED arg_${_field})
      target_compile_definitions(${name} PRIVATE ATTNMUX_PLUGIN_${_field}=${arg_${_field}})
    endif()
  endforeach()
  if(DEFINED arg_SM)
    target_compile_definitions(${name} PRIVATE "ATTNMUX_PLUGIN_SM=\"${arg_SM}\"")
  endif()

  # Two libraries with default visibility share the static members of inline templates (STB_GNU_UNIQUE) even under
  # RTLD_LOCAL, and a plugin's kernel template can be bound to the copy in libtorch_cuda: hence all of these.
  target_link_options(${name} PRIVATE LINKER:--exclude-libs,ALL LINKER:-Bsymbolic-functions
    LINKER:--version-script=${ATTNMUX_CMAKE_DIR}/plugin_exports.map)
  set_property(TARGET ${name} APPEND PROPERTY LINK_DEPENDS ${ATTNMUX_CMAKE_DIR}/plugin_exports.map)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang" OR NOT ATTNMUX_SANITIZE)  # clang links its runtime to programs only
    target_link_options(${name} PRIVATE LINKER:-z,defs)
  endif()
  add_custom_command(TARGET ${name} POST_BUILD VERBATIM
    COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} -DFILE=$<TARGET_FILE:${name}>
      -P ${ATTNMUX_CMAKE_DIR}/AttnmuxCheckExports.cmake)
endfunction()
