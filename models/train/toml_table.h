// A TOML table read strictly: every key is asked for by name, and what was not asked for is an error.
//
// Private to models/train: it includes toml++, so only .cpp files may include it. One reader collects the problems of a
// whole file; throw_if_any() reports them together. One thread.
#pragma once

#include <toml++/toml.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace attnmux {

class TomlProblems {
 public:
  // `sets`: dotted key -> the --set that gave its value.
  TomlProblems(std::string file, std::map<std::string, std::string> sets)
      : file_(std::move(file)), sets_(std::move(sets)) {}

  // `key` is dotted. The place shown is the --set that gave the value, or line and column in the file.
  void add(const std::string& key, const toml::source_region& place, const std::string& text);
  void throw_if_any() const;  // one Error(kConfig)

 private:
  std::string file_;
  std::map<std::string, std::string> sets_;
  std::vector<std::string> lines_;
};

class TomlTable {
 public:
  // A missing table reads as an empty one.
  TomlTable(const toml::table& root, const std::string& name, TomlProblems& problems);

  // Each leaves `value` as it is where the key is missing; `required` makes that a problem.
  void read(const std::string& key, bool required, std::string& value);
  void read(const std::string& key, bool required, bool& value);
  void read(const std::string& key, bool required, std::vector<std::string>& value);
  void read(const std::string& key, bool required, int64_t minimum, int64_t& value);
  void read(const std::string& key, bool required, double minimum, double& value);
  // One of `allowed`.
  void read_choice(const std::string& key, bool required, const std::vector<std::string>& allowed, std::string& value);

  void add_problem(const std::string& key, const std::string& text);
  // Every key that nobody has read is a problem, with the nearest spelling.
  void finish();

 private:
  const toml::node* find(const std::string& key, bool required);
  void wrong_type(const std::string& key, const toml::node& node, const std::string& expected);

  std::string name_;
  const toml::table* table_ = nullptr;
  TomlProblems& problems_;
  std::vector<std::string> known_;
};

}  // namespace attnmux
