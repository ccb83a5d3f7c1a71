#include "conformance/report.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

namespace attnmux::conformance {
namespace {

using nlohmann::ordered_json;

std::string family_of(const CaseResult& result) { return result.name.substr(0, result.name.find('/')); }

struct Counts {
  int64_t executed = 0, passed = 0, warned = 0, declined = 0, failed = 0, crashed = 0, timed_out = 0;
  double seconds = 0;
  std::map<std::string, int64_t> reasons;
  void add(const CaseResult& result) {
    executed += result.executed();
    seconds += result.seconds;
    switch (result.status) {
      case Status::kPass: ++passed; break;
      case Status::kWarn: ++warned; break;
      case Status::kFail: ++failed; break;
      case Status::kCrash: ++crashed; break;
      case Status::kTimeout: ++timed_out; break;
      case Status::kDeclined:
        ++declined;
        for (const std::string& code : result.reasons) ++reasons[code];
        break;
    }
  }
};

// In the order of the run.
std::vector<std::pair<std::string, Counts>> by_family(const RunReport& report) {
  std::vector<std::pair<std::string, Counts>> families;
  for (const CaseResult& result : report.results) {
    const std::string family = family_of(result);
    auto found =
        std::find_if(families.begin(), families.end(), [&](const auto& entry) { return entry.first == family; });
    if (found == families.end()) found = families.insert(families.end(), {family, {}});
    found->second.add(result);
  }
  return families;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      default:
        // What XML 1.0 has no way to say, and bytes beyond ASCII, which a plugin may print without being UTF-8.
        if ((static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || static_cast<unsigned char>(c) >= 0x7f) {
          result += '?';
        } else {
          result += c;
        }
    }
  }
  return result;
}

std::string reproduce(const RunOptions& options, const RunReport& report, const CaseResult& result) {
  std::string line = "attnmux check";
  if (!options.plugin.empty()) line += " --plugin " + options.plugin;
  line += " --" + report.subject.kind + " " + report.subject.id;
  if (report.subject.kind == "group") line += " --profile " + options.profile.name;
  if (options.device != "cpu") line += " --device " + options.device;
  return line + " --case '" + result.name.substr(0, result.name.find(' ')) + "'";
}

}  // namespace

std::string table(const RunReport& report, const RunOptions& options) {
  std::ostringstream out;
  char line[200];
  out << report.subject.kind << " " << report.subject.id << " " << report.subject.version << " of "
      << (options.plugin.empty() ? "the core library " : "plugin ") << report.plugin.id << " " << report.plugin.version
      << " by " << report.plugin.vendor << ", on " << options.device << "\n\n";
  std::snprintf(line, sizeof line, "%-12s %8s %7s %9s %7s %8s %8s %7s  %s\n", "family", "executed", "passed",
                "declined", "failed", "crashed", "timeout", "s", "declined for");
  out << line;
  for (const auto& [family, counts] : by_family(report)) {
    std::string reasons;
    for (const auto& [code, count] : counts.reasons) {
      reasons += (reasons.empty() ? "" : ", ") + code + " x" + std::to_string(count);
    }
    std::snprintf(line, sizeof line, "%-12s %8ld %7ld %9ld %7ld %8ld %8ld %7.1f  ", family.c_str(), counts.executed,
                  counts.passed + counts.warned, counts.declined, counts.failed, counts.crashed, counts.timed_out,
                  counts.seconds);
    out << line << reasons << "\n";
  }
  for (const CaseResult& result : report.results) {
    if (!result.bad() && result.status != Status::kWarn) continue;
    out << "\n" << to_string(result.status) << " " << result.name << "\n";
    if (!result.note.empty()) out << "  " << result.note << "\n";
    for (const Failure& failure : result.failures) out << "  " << failure.check << ": " << failure.text << "\n";
    if (result.bad()) out << "  again: " << reproduce(options, report, result) << "\n";
  }
  for (const std::string& pattern : report.missing) {
    out << "\nNOT EXECUTED, though profile " << options.profile.name << " demands it: " << pattern << "\n";
    for (const CaseResult& result : report.results) {
      if (result.status != Status::kDeclined || !matches(pattern, result.name)) continue;
      out << "  " << result.name << " was declined:";
      for (const std::string& code : result.reasons) out << " " << code;
      out << "\n";
    }
  }
  std::snprintf(line, sizeof line, "%.1f", report.seconds);
  out << "\n" << report.verdict(options) << " (" << report.results.size() << " cases, " << line << " s)";
  return out.str();
}

std::string scorecard(const RunReport& report, const RunOptions& options) {
  ordered_json abi = ordered_json::object();
  for (const auto& [field, value] : report.plugin.abi) abi[field] = value;
  ordered_json families = ordered_json::array(), cases = ordered_json::array();
  for (const auto& [family, counts] : by_family(report)) {
    families.push_back({{"family", family},
                        {"executed", counts.executed},
                        {"passed", counts.passed},
                        {"warned", counts.warned},
                        {"declined", counts.declined},
                        {"failed", counts.failed},
                        {"crashed", counts.crashed},
                        {"timed_out", counts.timed_out}});
  }
  for (const CaseResult& result : report.results) {
    ordered_json failures = ordered_json::array();
    for (const Failure& failure : result.failures)
      failures.push_back({{"check", failure.check}, {"text", failure.text}});
    cases.push_back({{"case", result.name},
                     {"status", std::string(to_string(result.status))},
                     {"failures", failures},
                     {"reasons", result.reasons},
                     {"note", result.note},
                     {"seconds", result.seconds}});
  }
  const ordered_json document = {
      {"suite_version", ATTNMUX_VERSION},
      {"verdict", report.verdict(options)},
      {"certified", report.certified(options)},
      {"partial", options.partial()},
      {"plugin",
       {{"file", report.file},
        {"sha256", report.sha256},
        {"id", report.plugin.id},
        {"version", report.plugin.version},
        {"vendor", report.plugin.vendor},
        {"abi", abi}}},
      {report.subject.kind,
       {{"id", report.subject.id}, {"version", report.subject.version}, {"description", report.subject.description}}},
      {"device", options.device},
      {"profile", options.profile.name},
      {"must_pass_hash", options.profile.hash},
      {"seed", options.seed},
      {"seconds", report.seconds},
      {"not_executed", report.missing},
      {"families", families},
      {"cases", cases}};
  return document.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string scorecard_not_loaded(const Error& error, const RunOptions& options) {
  const ordered_json document = {
      {"suite_version", ATTNMUX_VERSION},
      {"verdict", "not loaded: " + options.profile.name},
      {"certified", false},
      {"plugin", {{"file", options.plugin}}},
      {"not_loaded", {{"code", std::string(to_string(error.code()))}, {"text", error.what()}}}};
  return document.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string junit(const RunReport& report, const RunOptions& options) {
  std::ostringstream out;
  out << "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"attnmux check\" time=\"" << report.seconds
      << "\">\n";
  for (const auto& [family, counts] : by_family(report)) {
    out << "<testsuite name=\"" << family << "\" tests=\"" << counts.executed + counts.declined << "\" failures=\""
        << counts.failed << "\" errors=\"" << counts.crashed + counts.timed_out << "\" skipped=\"" << counts.declined
        << "\" time=\"" << counts.seconds << "\">\n";
    for (const CaseResult& result : report.results) {
      if (family_of(result) != family) continue;
      out << "<testcase classname=\"" << escaped(report.subject.id + "." + family) << "\" name=\""
          << escaped(result.name) << "\" time=\"" << result.seconds << "\">";
      for (const Failure& failure : result.failures) {
        const char* kind = result.status == Status::kFail ? "failure" : "error";
        out << "<" << kind << " type=\"" << escaped(failure.check) << "\" message=\"" << escaped(one_line(failure.text))
            << "\">" << escaped(failure.text + "\nagain: " + reproduce(options, report, result)) << "</" << kind << ">";
      }
      if (result.status == Status::kDeclined) {
        std::string codes;
        for (const std::string& code : result.reasons) codes += (codes.empty() ? "" : ", ") + code;
        out << "<skipped message=\"" << escaped("declined: " + codes) << "\"/>";
      }
      out << "</testcase>\n";
    }
    out << "</testsuite>\n";
  }
  if (!report.missing.empty()) {
    out << "<testsuite name=\"profile\" tests=\"" << report.missing.size() << "\" failures=\"" << report.missing.size()
        << "\">\n";
    for (const std::string& pattern : report.missing) {
      out << "<testcase classname=\"profile." << options.profile.name << "\" name=\"" << escaped(pattern)
          << "\"><failure message=\"no case that matches was executed\"/></testcase>\n";
    }
    out << "</testsuite>\n";
  }
  out << "</testsuites>\n";
  return out.str();
}

}  // namespace attnmux::conformance
