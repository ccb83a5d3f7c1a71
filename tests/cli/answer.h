// The JSON that a command answers with.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "run_program.h"

namespace attnmux::testing {

// stdout of a command that must succeed, as JSON: anything else on stdout makes the parse fail.
inline nlohmann::json answer(const std::vector<std::string>& arguments, const RunOptions& options = {}) {
  const Finished finished = run_program(arguments, options);
  EXPECT_EQ(finished.status, 0) << finished.err;
  return nlohmann::json::parse(finished.out, nullptr, /*allow_exceptions=*/false);
}

}  // namespace attnmux::testing
