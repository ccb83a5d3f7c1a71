// What a run is told as: a table for people, a scorecard in JSON, JUnit XML for build servers.
#pragma once

#include <string>

#include "attnmux/error.h"
#include "conformance/run.h"

namespace attnmux::conformance {

std::string table(const RunReport& report, const RunOptions& options);
std::string scorecard(const RunReport& report, const RunOptions& options);
// Of a plugin that could not be loaded.
std::string scorecard_not_loaded(const Error& error, const RunOptions& options);
std::string junit(const RunReport& report, const RunOptions& options);

}  // namespace attnmux::conformance
