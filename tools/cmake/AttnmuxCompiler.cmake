# What every target of the project is compiled with, as one interface target: attnmux::flags.
# Not exported: a plugin outside this tree takes its flags from AttnmuxPlugin.cmake alone.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
# Not POSITION_INDEPENDENT_CODE: it gives programs -fPIE, and a precompiled header serves one of the two only.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fPIC>)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)

# The build tree has the shape of the installed tree.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib/static)

find_program(ATTNMUX_CCACHE ccache)
if(ATTNMUX_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # base_dir: the same sources in another folder hit the cache; sloppiness: needed for precompiled headers.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${ATTNMUX_CCACHE})
endif()

add_library(attnmux_flags INTERFACE)
add_library(attnmux::flags ALIAS attnmux_flags)
# -Wno-missing-field-initializers: designated initializers leave members at their defaults on purpose.
target_compile_options(attnmux_flags INTERFACE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
    -fno-plt
    $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess;-fopenmp>  # at::parallel_for is an OpenMP loop in its header
    # GCC 13 takes references into documents and leaked libraries for ones to temporaries; GCC 14 took it out of -Wall.
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_GREATER_EQUAL:$<CXX_COMPILER_VERSION>,13>>:-Wno-dangling-reference>)
# Everywhere, not only where toml++ is used: a precompiled header serves only targets with the same macros.
target_compile_options(attnmux_flags INTERFACE
    $<TARGET_PROPERTY:tomlplusplus::tomlplusplus,INTERFACE_COMPILE_OPTIONS>)
# The system's linker: mold 1.10 saves 0.2 s a link, but hangs about once in some thousand and miscounts RELRO.
if(ATTNMUX_SANITIZE)
  target_compile_options(attnmux_flags INTERFACE -fsanitize=${ATTNMUX_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
  target_link_options(attnmux_flags INTERFACE -fsanitize=${ATTNMUX_SANITIZE})
endif()
