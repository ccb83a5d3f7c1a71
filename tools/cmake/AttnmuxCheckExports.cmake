# cmake -DNM=nm -DFILE=acme.so -P AttnmuxCheckExports.cmake: fails unless the library exports the plugin entry alone.
# Message lines begin with a space, so that CMake does not wrap them.

execute_process(COMMAND ${NM} --dynamic --defined-only --format=posix ${FILE}
  OUTPUT_VARIABLE _symbols RESULT_VARIABLE _status)
if(NOT _status EQUAL 0)
  message(FATAL_ERROR "${NM} cannot read ${FILE}")
endif()
string(REGEX MATCHALL "[^\n]+" _lines "${_symbols}")
list(TRANSFORM _lines REPLACE " .*" "")
list(FIND _lines attnmux_plugin_entry_v1 _entry)
if(_entry EQUAL -1)
  message(FATAL_ERROR " ${FILE} does not export attnmux_plugin_entry_v1.\n"
    " Write ATTNMUX_PLUGIN(id, version, vendor, register_function) once in its sources.")
endif()
list(REMOVE_ITEM _lines attnmux_plugin_entry_v1)
if(_lines)
  list(JOIN _lines "\n  " _lines)
  message(FATAL_ERROR " ${FILE} exports more than its entry:\n  ${_lines}\n"
    " Another library in the process could be bound to these symbols. Build it with attnmux_add_plugin() and link it "
    "with no version script or visibility option of its own.")
endif()
