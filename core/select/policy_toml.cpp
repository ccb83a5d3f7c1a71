#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "attnmux/error.h"
#include "attnmux/selection_policy.h"
#include "attnmux/spelling.h"
#include "glob.h"

namespace attnmux {
namespace {

// Reads tables and reports what is wrong with them by file, line and column.
class Reader {
 public:
  explicit Reader(std::string file_name) : file_name_(std::move(file_name)) {}

  [[noreturn]] void fail(const toml::source_region& source, const std::string& text) const {
    throw Error(ErrorCode::kConfig, at(source) + ": " + text);
  }

  std::string at(const toml::source_region& source) const {
    return file_name_ + ":" + std::to_string(source.begin.line) + ":" + std::to_string(source.begin.column);
  }

  void check_keys(const toml::table& table, const std::string& name, const std::vector<std::string>& known) const {
    for (const auto& [key, value] : table) {
      const std::string text(key.str());
      if (std::find(known.begin(), known.end(), text) != known.end()) continue;
      fail(key.source(), name + ": " + unknown_word("key", text, known));
    }
  }

  const toml::table& table(const toml::node& node, const std::string& name) const {
    if (!node.is_table()) fail(node.source(), name + " must be a table, got " + type_of(node));
    return *node.as_table();
  }

  std::string string(const toml::node& node, const std::string& name) const {
    if (!node.is_string()) fail(node.source(), name + " must be a string, got " + type_of(node));
    return node.as_string()->get();
  }

  bool boolean(const toml::node& node, const std::string& name) const {
    if (!node.is_boolean()) fail(node.source(), name + " must be true or false, got " + type_of(node));
    return node.as_boolean()->get();
  }

  std::vector<std::string> strings(const toml::node& node, const std::string& name) const {
    if (!node.is_array()) fail(node.source(), name + " must be an array of strings, got " + type_of(node));
    std::vector<std::string> result;
    for (const toml::node& element : *node.as_array()) result.push_back(string(element, "an element of " + name));
    return result;
  }

  static std::string type_of(const toml::node& node) {
    switch (node.type()) {
      case toml::node_type::table: return "a table";
      case toml::node_type::array: return "an array";
      case toml::node_type::string: return "a string";
      case toml::node_type::integer: return "an integer";
      case toml::node_type::floating_point: return "a float";
      case toml::node_type::boolean: return "a boolean";
      default: return "a date or time";
    }
  }

  const std::string& file_name() const { return file_name_; }

 private:
  std::string file_name_;
};

SelectionRule read_rule(const Reader& reader, const toml::table& table) {
  const std::string name = "[[attention.rules]]";
  reader.check_keys(table, name, {"match", "backend", "require", "fallback"});
  SelectionRule rule{.origin = reader.at(table.source())};
  for (const auto& [key, target] : {std::pair{"match", &rule.match}, std::pair{"backend", &rule.backend}}) {
    const toml::node* node = table.get(key);
    if (!node) reader.fail(table.source(), name + " needs the key \"" + key + "\"");
    *target = reader.string(*node, name + " " + key);
    if (target->empty()) reader.fail(node->source(), name + " " + key + " is empty");
  }
  if (const auto problem = pattern_problem(rule.match)) {
    reader.fail(table.get("match")->source(), name + " match = \"" + rule.match + "\": " + *problem);
  }
  if (const toml::node* node = table.get("require")) {
    const toml::table& require = reader.table(*node, name + " require");
    reader.check_keys(require, name + " require", {"deterministic"});
    if (const toml::node* flag = require.get("deterministic")) {
      rule.require_deterministic = reader.boolean(*flag, name + " require.deterministic");
    }
  }
  if (const toml::node* node = table.get("fallback")) {
    rule.fallback = reader.strings(*node, name + " fallback");
    if (rule.backend == "auto" && !rule.fallback.empty()) {
      reader.fail(node->source(), name + " backend = \"auto\" already asks every backend; remove `fallback`");
    }
    for (const std::string& id : rule.fallback) {
      if (id == "auto") reader.fail(node->source(), name + " fallback names backends; \"auto\" is none of them");
      if (id == rule.backend) {
        reader.fail(node->source(), name + " fallback \"" + id + "\" is the rule's own backend");
      }
    }
  }
  return rule;
}

void read_attention(const Reader& reader, const toml::table& attention, SelectionPolicy& policy) {
  reader.check_keys(attention, "[attention]", {"plugins", "strict", "rules"});
  if (const toml::node* node = attention.get("strict")) {
    policy.strict = reader.boolean(*node, "[attention] strict");
  }
  if (const toml::node* node = attention.get("plugins")) {
    const std::filesystem::path folder = std::filesystem::path(reader.file_name()).parent_path();
    for (const std::string& file : reader.strings(*node, "[attention] plugins")) {
      if (file.empty()) reader.fail(node->source(), "[attention] plugins holds an empty path");
      policy.plugins.push_back((folder / file).string());
    }
  }
  if (const toml::node* node = attention.get("rules")) {
    if (!node->is_array()) {
      reader.fail(node->source(), "[attention] rules must be an array of tables, got " + Reader::type_of(*node) +
                                      "; write [[attention.rules]] with double brackets");
    }
    for (const toml::node& element : *node->as_array()) {
      policy.rules.push_back(read_rule(reader, reader.table(element, "an element of [attention] rules")));
    }
  }
}

}  // namespace

SelectionPolicy policy_from_toml(const std::string& text, const std::string& file_name) {
  const Reader reader(file_name);
  toml::table root;
  try {
    root = toml::parse(text, file_name);
  } catch (const toml::parse_error& error) {
    reader.fail(error.source(), std::string(error.description()));
  }
  // The tables of a training file: a misspelt [atention] would drop its rules in silence.
  reader.check_keys(root, "top level", {"model", "attention", "parallel", "data", "train"});
  SelectionPolicy policy;
  if (const toml::node* node = root.get("attention")) {
    read_attention(reader, reader.table(*node, "[attention]"), policy);
  }
  if (const toml::node* node = root.get("model")) {
    const toml::table& model = reader.table(*node, "[model]");
    reader.check_keys(model, "[model]", {"path", "attn_implementation"});
    if (const toml::node* value = model.get("attn_implementation")) {
      const std::string implementation = reader.string(*value, "[model] attn_implementation");
      const SelectionPolicy derived =
          policy_from_attn_implementation(implementation, reader.at(value->source()) + ": [model] attn_implementation");
      policy.rules.insert(policy.rules.end(), derived.rules.begin(), derived.rules.end());
    }
  }
  return policy;
}

}  // namespace attnmux
