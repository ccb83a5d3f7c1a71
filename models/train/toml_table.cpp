#include "models/train/toml_table.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "attnmux/error.h"
#include "attnmux/spelling.h"

namespace attnmux {
namespace {

std::string type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "an array";
    case toml::node_type::string: return "a string";
    case toml::node_type::integer: return "an integer";
    case toml::node_type::floating_point: return "a number";
    case toml::node_type::boolean: return "a boolean";
    default: return "a date or time";
  }
}

std::string number_text(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

}  // namespace

void TomlProblems::add(const std::string& key, const toml::source_region& place, const std::string& text) {
  std::string where = file_;
  const auto set = std::find_if(sets_.begin(), sets_.end(), [&](const auto& entry) {
    return key == entry.first || key.starts_with(entry.first + ".") || entry.first.starts_with(key + ".");
  });
  if (set != sets_.end()) {
    where = "--set " + set->second;
  } else if (place.begin.line > 0) {
    where.append(":").append(std::to_string(place.begin.line)).append(":").append(std::to_string(place.begin.column));
  }
  lines_.push_back(where + ": " + text);
}

void TomlProblems::throw_if_any() const {
  if (lines_.empty()) return;
  std::string text = lines_.front();
  for (size_t i = 1; i < lines_.size(); ++i) text += "\n" + lines_[i];
  throw Error(ErrorCode::kConfig, text);
}

TomlTable::TomlTable(const toml::table& root, const std::string& name, TomlProblems& problems)
    : name_(name), problems_(problems) {
  const toml::node* node = root.get(name);
  if (node == nullptr) return;
  table_ = node->as_table();
  if (table_ == nullptr)
    problems_.add(name, node->source(), name + " is " + type_name(*node) + ", expected a table [" + name + "]");
}

const toml::node* TomlTable::find(const std::string& key, bool required) {
  known_.push_back(key);
  const toml::node* node = table_ == nullptr ? nullptr : table_->get(key);
  if (node == nullptr && required) {
    problems_.add(name_ + "." + key, table_ ? table_->source() : toml::source_region{},
                  "[" + name_ + "] needs the key " + key);
  }
  return node;
}

void TomlTable::wrong_type(const std::string& key, const toml::node& node, const std::string& expected) {
  problems_.add(name_ + "." + key, node.source(),
                name_ + "." + key + " is " + type_name(node) + ", expected " + expected);
}

void TomlTable::read(const std::string& key, bool required, std::string& value) {
  const toml::node* node = find(key, required);
  if (node == nullptr) return;
  if (!node->is_string()) return wrong_type(key, *node, "a string");
  value = **node->as_string();
  if (value.empty()) add_problem(key, "is empty");
}

void TomlTable::read(const std::string& key, bool required, bool& value) {
  const toml::node* node = find(key, required);
  if (node == nullptr) return;
  if (!node->is_boolean()) return wrong_type(key, *node, "true or false");
  value = **node->as_boolean();
}

void TomlTable::read(const std::string& key, bool required, std::vector<std::string>& value) {
  const toml::node* node = find(key, required);
  if (node == nullptr) return;
  const toml::array* array = node->as_array();
  if (array == nullptr || !std::all_of(array->begin(), array->end(), [](const auto& n) { return n.is_string(); })) {
    return wrong_type(key, *node, "an array of strings");
  }
  value.clear();
  for (const toml::node& element : *array) value.push_back(**element.as_string());
  if (required && value.empty()) add_problem(key, "is empty; it needs at least one entry");
}

void TomlTable::read(const std::string& key, bool required, int64_t minimum, int64_t& value) {
  const toml::node* node = find(key, required);
  if (node == nullptr) return;
  if (!node->is_integer()) return wrong_type(key, *node, "an integer");
  value = **node->as_integer();
  if (value < minimum) {
    add_problem(key, "is " + std::to_string(value) + ", allowed are " + std::to_string(minimum) + " and more");
  }
}

void TomlTable::read(const std::string& key, bool required, double minimum, double& value) {
  const toml::node* node = find(key, required);
  if (node == nullptr) return;
  if (!node->is_number()) return wrong_type(key, *node, "a number");
  value = *node->value<double>();
  if (!(value >= minimum) || value > 1e300) {
    add_problem(key, "is " + number_text(value) + ", allowed are " + number_text(minimum) + " and more");
  }
}

void TomlTable::read_choice(const std::string& key, bool required, const std::vector<std::string>& allowed,
                            std::string& value) {
  const toml::node* node = find(key, required);
  if (node == nullptr) return;
  if (!node->is_string()) return wrong_type(key, *node, "a string");
  value = **node->as_string();
  if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
    add_problem(key, ": " + unknown_word("value", value, allowed));
  }
}

void TomlTable::add_problem(const std::string& key, const std::string& text) {
  const toml::node* node = table_ == nullptr ? nullptr : table_->get(key);
  problems_.add(name_ + "." + key, node ? node->source() : toml::source_region{},
                name_ + "." + key + (text.starts_with(":") ? "" : " ") + text);
}

void TomlTable::finish() {
  if (table_ == nullptr) return;
  for (const auto& [key, node] : *table_) {
    const std::string name(key.str());
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    problems_.add(name_ + "." + name, key.source(), unknown_word("key", name_ + "." + name, [&] {
                    std::vector<std::string> full;
                    for (const std::string& k : known_) full.push_back(name_ + "." + k);
                    return full;
                  }()));
  }
}

}  // namespace attnmux
