// Checks that a call throws an Error of a code whose text holds every part.
//
//   expect_error(ErrorCode::kBadFile, {"model.safetensors", "truncated"}, [&] { SafetensorsFile::open(path); });
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attnmux/error.h"

namespace attnmux {

template <typename Function>
void expect_error(ErrorCode code, const std::vector<std::string>& parts, Function&& function) {
  try {
    function();
    ADD_FAILURE() << "no error; expected " << to_string(code);
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "\"" << part << "\" is not in \"" << error.what() << "\"";
    }
  }
}

}  // namespace attnmux
