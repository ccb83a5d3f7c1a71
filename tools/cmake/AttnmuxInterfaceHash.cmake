# cmake -DHEADERS="a.h;b.h" -DOUTPUT=interface_hash.h -P AttnmuxInterfaceHash.cmake
#
# Writes ATTNMUX_INTERFACE_HASH: 128 bits of SHA-256 over the public headers' text without comments and white space at
# line ends. Text, not preprocessed code, so that every compiler and every Linux agrees on it. A plugin whose tag holds
# another hash was compiled against other declarations and is refused.

set(_text "")
list(SORT HEADERS)
foreach(_header IN LISTS HEADERS)
  file(READ "${_header}" _body)
  # Line comments first: one may hold "/*", as in a path with a star.
  string(REGEX REPLACE "//[^\n]*" "" _body "\n${_body}")
  string(REGEX REPLACE "/\\*([^*]|\\*+[^*/])*\\*+/" " " _body "${_body}")
  string(REGEX REPLACE "[ \t\r]+\n" "\n" _body "${_body}")
  string(REGEX REPLACE "\n+" "\n" _body "${_body}")
  cmake_path(GET _header FILENAME _name)
  string(APPEND _text "${_name}\n${_body}")
endforeach()
string(SHA256 _hash "${_text}")
string(SUBSTRING "${_hash}" 0 32 _hash)

set(_content "// Made by the build from the texts of the public headers; see AttnmuxInterfaceHash.cmake.
#pragma once

#define ATTNMUX_INTERFACE_HASH \"${_hash}\"
")
if(EXISTS "${OUTPUT}")
  file(READ "${OUTPUT}" _old)
endif()
if(NOT "${_content}" STREQUAL "${_old}")  # an unchanged file keeps its time: nothing is compiled again
  file(WRITE "${OUTPUT}" "${_content}")
endif()
