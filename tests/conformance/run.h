// A whole run: the file, a child that describes it, a worker for each family, the verdict.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "conformance/case_result.h"
#include "conformance/profile.h"

namespace attnmux::conformance {

struct RunOptions {
  std::string plugin;   // empty: a group of ranks that is built in
  std::string backend;  // which one; with `group` empty, too: the only thing that the plugin has
  std::string group;    // or which group of ranks
  std::string device = "cpu";
  Profile profile;
  std::vector<std::string> cases;     // these alone; empty: the grid
  std::vector<std::string> families;  // these alone; empty: the profile's
  uint64_t seed = 7;
  double seconds = 60;  // that a case may take
  // Told before each family and at the end: cases done, cases planned, what comes next.
  std::function<void(int64_t done, int64_t total, const std::string& next)> progress;

  bool partial() const { return !cases.empty() || !families.empty(); }
};

// What is certified.
struct SubjectText {
  std::string kind;  // "backend", "group"
  std::string id, version, description;
};

struct PluginText {
  std::string id, version, vendor;
  std::vector<std::pair<std::string, std::string>> abi;
};

struct RunReport {
  PluginText plugin;  // of a group that is built in: the core library
  SubjectText subject;
  std::string file, sha256;
  std::vector<CaseResult> results;   // in the order of the run
  std::vector<std::string> missing;  // must patterns that no executed case met
  double seconds = 0;

  bool any_executed() const;
  bool any_bad() const;
  bool certified(const RunOptions& options) const;
  std::string verdict(const RunOptions& options) const;  // "certified: core"
  int exit_status() const;                               // 0 certified or passed, 1 failed, 3 nothing was executed
};

// Throws Error: kUsage for what the plugin lacks and for what the profile does not ask of it, the loader's codes where
// it cannot be loaded.
RunReport run(const RunOptions& options);

}  // namespace attnmux::conformance
