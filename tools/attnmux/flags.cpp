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

}  // namespace

struct Flags::State {
  CommandText text;
  po::options_description visible{"Flags", kHelpWidth, kHelpWidth / 2};
  std::string positional, positional_about;
  std::string* positional_value = nullptr;
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
  if (need == Need::kRequired) semantic->required();
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
  po::options_description all;
  all.add(state_->visible);
  po::positional_options_description positions;
  const std::string& positional = state_->positional;
  if (state_->positional_value) {
    all.add_options()(positional.c_str(), po::value(state_->positional_value));
    positions.add(positional.c_str(), 1);
  }
  try {
    po::store(po::command_line_parser(arguments).options(all).positional(positions).style(kStyle).run(), state_->given);
    if (state_->positional_value && state_->given.count(positional) == 0) state_->fail(positional + " is missing");
    po::notify(state_->given);
  } catch (const po::unknown_option& error) {
    state_->fail(unknown_word("flag", error.get_option_name(), state_->known()));
  } catch (const po::too_many_positional_options_error&) {
    std::string words;
    for (const std::string& word : arguments) words += word.starts_with("-") ? "" : " \"" + word + "\"";
    state_->fail("a word belongs to no flag, among" + words + "; this command takes " +
                 (positional.empty() ? "flags only" : "one " + positional + " and flags"));
  } catch (const po::error& error) {
    state_->fail(error.what());
  }
  return true;
}

bool Flags::given(const std::string& name) const {
  return state_->given.count(name) > 0 && !state_->given[name].defaulted();
}

}  // namespace attnmux::tool
