// Which families a profile runs, and which cases must have been executed for its verdict.
//
//   const Profile& core = find_profile("core");
//   std::vector<std::string> missing = core.unmet(results);
//
// Profiles are text under version control (profiles/*.txt), built into the program; their hash goes into the scorecard.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "conformance/case.h"
#include "conformance/case_result.h"

namespace attnmux::conformance {

struct Profile {
  std::string name;
  std::vector<Family> families;
  bool gradients = false;
  std::vector<std::string> must;  // patterns
  std::string hash;               // of the text, with that of the profile that it extends

  bool runs(Family family) const;
  // The part of it that these families are.
  Profile of_families(const std::function<bool(Family family)>& wanted) const;
  // Patterns that no executed case matches.
  std::vector<std::string> unmet(const std::vector<CaseResult>& results) const;
};

std::vector<std::string> profile_names();
// Throws Error(kUsage) with the nearest spelling.
Profile find_profile(std::string_view name);

// `*` stands for any text, also none.
bool matches(std::string_view pattern, std::string_view text);

}  // namespace attnmux::conformance
