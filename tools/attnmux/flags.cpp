#include <algorithm>
#include <boost/program_options.hpp>
#include <sstream>

#include "attnmux/error.h"
#include "attnmux/spelling.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {
namespace po = boost::program_options;

namespace {

constexpr unsigned kHelpWidth = 110;
// Not the default style: that one takes any unambiguous beginning of a flag's name, so that a new flag could change the
// meaning of a script.
constexpr int kStyle = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;

template <class T>
po::typed_value<T>* bound(T& value, const std::string& shown) {
  return po::value(&value)->value_name(shown);
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace

struct Flags::State {
  CommandText text;
  po::options_description visible{"Flags", kHelpWidth, kHelpWidth / 2};
  std::string positional, positional_about;
  std::string* positional_value = nullptr;
  std::vector<std::pair<std::string, const std::string*>> required;  // names and bound variables
  po::variables_map given;

  std::string help() const {
    std::ostringstream out;
    out << "attnmux " << text.name << " " << text.usage << "\n\n" << text.about << "\n\n";
    if (positional_value) out << positional << ": " << positional_about << "\n\n";
    out << visible << "\nExample" << (text.examples.size() == 1 ? "" : "s") << ":\n";
    for (const std::string& example : text.examples) out << "  " << example << "\n";
    std::string result = out.str();
    result.pop_back();
    return result;
  }

  // Words that no flag stands in front of: the positional value, and nothing else.
  void take_words(const po::parsed_options& parsed) {
    std::vector<std::string> stray;
    for (const po::option& option : parsed.options) {
      if (option.position_key < 0) continue;  // a flag with its value
      const std::string& word = option.original_tokens.front();
      if (option.position_key == 0 && positional_value) {
        *positional_value = word;
      } else {
        stray.push_back("\"" + word + "\"");
      }
    }
    if (stray.empty()) return;
    fail(joined(stray) + (stray.size() == 1 ? " belongs" : " belong") + " to no flag; this command takes " +
         (positional.empty() ? "flags only" : "one " + positional + " and flags"));
  }

  void check_required() const {
    std::vector<std::string> missing;
    if (positional_value && positional_value->empty()) missing.push_back(positional);
    for (const auto& [name, value] : required) {
      if (given.count(name) == 0) missing.push_back("--" + name);
    }
    if (!missing.empty()) fail(joined(missing) + (missing.size() == 1 ? " is" : " are") + " missing and required");
    for (const auto& [name, value] : required) {
      if (value->empty()) fail("--" + name + " is empty; give it a value");
    }
  }

  std::vector<std::string> known() const {
    std::vector<std::string> names;
    for (const auto& option : visible.options()) names.push_back("--" + option->long_name());
    return names;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kUsage, "attnmux " + text.name + ": " + what + ". See `attnmux " + text.name + " --help`");
  }
};

Flags::Flags(CommandText text) : state_(std::make_unique<State>()) {
  state_->text = std::move(text);
  state_->visible.add_options()("help,h", "print this text");
}
Flags::~Flags() = default;

void Flags::add(const std::string& name, std::string& value, Need need, const std::string& shown,
                const std::string& about) {
  auto* semantic = bound(value, shown);
  if (need == Need::kRequired) state_->required.emplace_back(name, &value);
  if (!value.empty()) semantic->default_value(value);
  state_->visible.add_options()(name.c_str(), semantic, about.c_str());
}

void Flags::add(const std::string& name, int64_t& value, const std::string& shown, const std::string& about) {
  state_->visible.add_options()(name.c_str(), bound(value, shown)->default_value(value), about.c_str());
}

void Flags::add(const std::string& name, double& value, const std::string& shown, const std::string& about) {
  state_->visible.add_options()(name.c_str(), bound(value, shown), about.c_str());
}

void Flags::add(const std::string& name, bool& value, const std::string& about) {
  state_->visible.add_options()(name.c_str(), po::bool_switch(&value), about.c_str());
}

void Flags::add(const std::string& name, std::vector<std::string>& values, const std::string& shown,
                const std::string& about) {
  state_->visible.add_options()(name.c_str(), bound(values, shown)->composing(), about.c_str());
}

void Flags::add_positional(const std::string& name, std::string& value, const std::string& about) {
  state_->positional = name;
  state_->positional_about = about;
  state_->positional_value = &value;
}

bool Flags::parse(const Arguments& arguments) {
  if (std::any_of(arguments.begin(), arguments.end(), [](const auto& a) { return a == "--help" || a == "-h"; })) {
    print_line(state_->help());
    return false;
  }
  try {
    const po::parsed_options parsed = po::command_line_parser(arguments).options(state_->visible).style(kStyle).run();
    state_->take_words(parsed);
    po::store(parsed, state_->given);
    po::notify(state_->given);
    state_->check_required();
  } catch (const po::unknown_option& error) {
    state_->fail(unknown_word("flag", error.get_option_name(), state_->known()));
  } catch (const po::error& error) {
    state_->fail(error.what());
  }
  return true;
}

bool Flags::given(const std::string& name) const {
  return state_->given.count(name) > 0 && !state_->given[name].defaulted();
}

}  // namespace attnmux::tool
