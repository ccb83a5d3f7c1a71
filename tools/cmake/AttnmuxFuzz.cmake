# attnmux_add_fuzzer(NAME SOURCES...): a libFuzzer program of tests/fuzz, built by the preset "fuzz" (clang).
#
# SOURCES are its own file and the sources it tests, compiled into it: linking a library would bring in LibTorch, and
# with it code that clang, OpenMP and the sanitizers do not agree about.
#
# The seeds of NAME_fuzz lie in tests/fuzz/corpus/NAME, with every input that once broke something; ctest runs it over
# them. To fuzz: build-fuzz/fuzz/NAME_fuzz -max_total_time=600 NEW_FOLDER tests/fuzz/corpus/NAME
function(attnmux_add_fuzzer name)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "libFuzzer comes with clang, not ${CMAKE_CXX_COMPILER_ID}: cmake --preset fuzz")
  endif()
  set(_sanitize fuzzer)
  if(ATTNMUX_SANITIZE)
    string(APPEND _sanitize ",${ATTNMUX_SANITIZE}")
  endif()
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/core/include)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
    -fsanitize=${_sanitize} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(${name} PRIVATE -fsanitize=${_sanitize})
  target_link_libraries(${name} PRIVATE nlohmann_json::nlohmann_json)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
  string(REGEX REPLACE "_fuzz$" "" _corpus ${name})
  add_test(NAME ${name} COMMAND ${name} -runs=0 ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${_corpus})
endfunction()
