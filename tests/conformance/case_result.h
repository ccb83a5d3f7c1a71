// What became of a case.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conformance/checks.h"

namespace attnmux::conformance {

enum class Status : uint8_t {
  kPass,
  kWarn,      // passed, and something is worth reading
  kFail,      // a check did not hold
  kCrash,     // the process ended while the case ran
  kTimeout,   // the case did not end in time
  kDeclined,  // the backend refused the request; never a pass
};
std::string_view to_string(Status status);  // "PASS"

struct Failure {
  std::string check;  // name of the Check; "crash", "timeout", "suite" where no check was reached
  std::string text;
};

struct CaseResult {
  std::string name;  // the case's string
  Status status = Status::kPass;
  std::vector<Failure> failures;
  std::vector<std::string> reasons;  // codes, of a declined case
  std::string note;                  // of a warning
  double seconds = 0;

  // Counts unless the check is switched off. The texts of one check are joined: the first says enough.
  void fail(Check check, const std::string& text);
  // The suite itself is wrong, not the plugin.
  void suite_error(const std::string& text);
  void decline(const std::vector<std::string>& codes);
  void warn(const std::string& text);
  bool executed() const { return status != Status::kDeclined; }
  bool bad() const { return status == Status::kFail || status == Status::kCrash || status == Status::kTimeout; }
};

// For a failure: what a process printed before it ended; empty where that is nothing.
std::string last_words(const std::string& printed);

// One line of JSON without a line end, and back.
std::string to_record(const CaseResult& result);
CaseResult from_record(const std::string& record);

}  // namespace attnmux::conformance
