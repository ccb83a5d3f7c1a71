# attnmux_add_test(NAME SOURCES...): one GoogleTest program, run by ctest as one entry that leaves an XML report
# under <build>/test-reports, from which tools/test counts passed, failed and skipped tests.
function(attnmux_add_test name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE attnmux::core attnmux::flags GTest::gtest GTest::gmock GTest::gtest_main)
  target_precompile_headers(${name} REUSE_FROM attnmux_core)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  target_compile_definitions(${name} PRIVATE ATTNMUX_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    ATTNMUX_BUILD_DIR="${PROJECT_BINARY_DIR}")
  add_test(NAME ${name} COMMAND ${name} --gtest_output=xml:${PROJECT_BINARY_DIR}/test-reports/${name}.xml)
endfunction()

# A test whose programs run under mpirun: one at a time, as their deadlines are short and their ranks already more than
# the cores. OpenMPI keeps memory of its own to the end, allocated in modules that are closed by then, so that no
# suppression finds it: the leak check of AddressSanitizer is off there.
function(attnmux_test_runs_mpi name)
  set_tests_properties(${name} PROPERTIES ENVIRONMENT ASAN_OPTIONS=detect_leaks=0 RESOURCE_LOCK mpirun)
endfunction()
