// Strict reading of small JSON documents: unknown, missing and repeated keys, wrong types and numbers that are no int64
// are errors that name the place, e.g. slices[3].q[1].
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace attnmux {

// Throws Error(kConfig) with line and column for text that is not JSON, repeats a key in an object or nests deeper than
// any document of ours.
nlohmann::json parse_json(std::string_view text);

// A value and its place. Every member throws Error(kConfig).
class JsonReader {
 public:
  JsonReader(const nlohmann::json& value, std::string place) : value_(value), place_(std::move(place)) {}

  // Refuses all but an object with exactly these keys, of which it may lack the optional ones.
  void check_keys(const std::vector<std::string>& keys, const std::vector<std::string>& optional = {}) const;
  bool has(const std::string& key) const;
  JsonReader at(const std::string& key) const;

  size_t size() const;  // of a list
  JsonReader at(size_t index) const;

  int64_t integer() const;
  double number() const;
  std::vector<int64_t> integers() const;
  std::string string() const;

  // "slices[3].q has 3 values; ..."
  [[noreturn]] void refuse(const std::string& complaint) const;

 private:
  std::string found() const;

  const nlohmann::json& value_;
  std::string place_;
};

}  // namespace attnmux
