#include "conformance/profile.h"

#include <algorithm>
#include <sstream>

#include "attnmux/error.h"
#include "attnmux/hash.h"
#include "attnmux/spelling.h"
#include "conformance/embedded.h"

namespace attnmux::conformance {
namespace {

Profile parse(const std::string& name, const char* text) {
  Profile profile;
  profile.name = name;
  Hasher hasher;
  hasher.add_bytes(text, std::char_traits<char>::length(text));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    if (!(words >> word) || word.front() == '#') continue;
    if (word == "extends") {
      words >> word;
      const Profile base = find_profile(word);
      profile.families = base.families;
      profile.must = base.must;
      profile.gradients = base.gradients;
      hasher.add_bytes(base.hash.data(), base.hash.size());
    } else if (word == "run") {
      while (words >> word) profile.families.push_back(parse_family(word));
    } else if (word == "gradients") {
      profile.gradients = true;
    } else if (word == "must") {
      words >> word;
      profile.must.push_back(word);
    } else {
      throw Error(ErrorCode::kInternal, "profile " + name + ": " + line);
    }
  }
  profile.hash = to_string(hasher.finish());
  return profile;
}

}  // namespace

bool matches(std::string_view pattern, std::string_view text) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == text;
  if (text.substr(0, star) != pattern.substr(0, star)) return false;
  pattern.remove_prefix(star + 1);
  for (size_t skip = star; skip <= text.size(); ++skip) {
    if (matches(pattern, text.substr(skip))) return true;
  }
  return false;
}

bool Profile::runs(Family family) const {
  return std::find(families.begin(), families.end(), family) != families.end();
}

Profile Profile::of_families(const std::function<bool(Family family)>& wanted) const {
  Profile part = *this;
  std::erase_if(part.families, [&](Family family) { return !wanted(family); });
  std::erase_if(part.must, [&](const std::string& pattern) {
    return !wanted(parse_family(std::string_view(pattern).substr(0, pattern.find('/'))));
  });
  return part;
}

std::vector<std::string> Profile::unmet(const std::vector<CaseResult>& results) const {
  std::vector<std::string> missing;
  for (const std::string& pattern : must) {
    const bool met = std::any_of(results.begin(), results.end(), [&](const CaseResult& result) {
      return result.executed() && matches(pattern, result.name);
    });
    if (!met) missing.push_back(pattern);
  }
  return missing;
}

std::vector<std::string> profile_names() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : embedded_profiles()) names.emplace_back(file.name);
  return names;
}

Profile find_profile(std::string_view name) {
  for (const EmbeddedFile& file : embedded_profiles()) {
    if (name == file.name) return parse(file.name, file.text);
  }
  throw Error(ErrorCode::kUsage, unknown_word("profile", name, profile_names()));
}

}  // namespace attnmux::conformance
