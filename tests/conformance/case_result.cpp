#include "conformance/case_result.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "attnmux/error.h"

namespace attnmux::conformance {
namespace {

using nlohmann::json;

constexpr std::pair<Status, const char*> kStatuses[] = {{Status::kPass, "PASS"},       {Status::kWarn, "WARN"},
                                                        {Status::kFail, "FAIL"},       {Status::kCrash, "CRASH"},
                                                        {Status::kTimeout, "TIMEOUT"}, {Status::kDeclined, "DECLINED"}};

}  // namespace

std::string_view to_string(Status status) {
  for (const auto& [value, name] : kStatuses) {
    if (value == status) return name;
  }
  return "?";
}

void CaseResult::fail(Check check, const std::string& text) {
  if (!is_enabled(check)) return;
  status = Status::kFail;
  const std::string name(to_string(check));
  const bool known =
      std::any_of(failures.begin(), failures.end(), [&](const Failure& failure) { return failure.check == name; });
  if (!known) failures.push_back({name, text});
}

void CaseResult::suite_error(const std::string& text) {
  status = Status::kFail;
  failures.push_back({"suite", "error of the suite, not of the plugin: " + text});
}

void CaseResult::decline(const std::vector<std::string>& codes) {
  if (status == Status::kPass) status = Status::kDeclined;
  reasons = codes;
}

void CaseResult::warn(const std::string& text) {
  if (status == Status::kPass) status = Status::kWarn;
  note = text;
}

std::string last_words(const std::string& printed) { return printed.empty() ? "" : "\n  it printed last: " + printed; }

std::string to_record(const CaseResult& result) {
  json failures = json::array();
  for (const Failure& failure : result.failures) failures.push_back({failure.check, failure.text});
  const json record = {{"name", result.name},  {"status", std::string(to_string(result.status))},
                       {"failures", failures}, {"reasons", result.reasons},
                       {"note", result.note},  {"seconds", result.seconds}};
  return record.dump(-1, ' ', false, json::error_handler_t::replace);
}

CaseResult from_record(const std::string& text) {
  const json record = json::parse(text);
  CaseResult result;
  result.name = record.at("name");
  const std::string status = record.at("status");
  const auto* found = std::find_if(std::begin(kStatuses), std::end(kStatuses),
                                   [&](const auto& entry) { return entry.second == status; });
  if (found == std::end(kStatuses)) throw Error(ErrorCode::kInternal, "unknown status " + status);
  result.status = found->first;
  for (const json& failure : record.at("failures")) result.failures.push_back({failure.at(0), failure.at(1)});
  result.reasons = record.at("reasons").get<std::vector<std::string>>();
  result.note = record.at("note");
  result.seconds = record.at("seconds");
  return result;
}

}  // namespace attnmux::conformance
