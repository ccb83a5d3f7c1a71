// The commands of the program, and what they share: the reading of flags, the ways to answer.
//
// A command is a function of its arguments that returns an exit status and throws attnmux::Error; it prints its answer
// on stdout, everything else goes to stderr through attnmux/log.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace attnmux::tool {

using Arguments = std::vector<std::string>;

int run_plan(const Arguments& arguments);
int run_attend(const Arguments& arguments);
int run_bench(const Arguments& arguments);
int run_bench_comm(const Arguments& arguments);   // `bench comm`
int run_bench_plan(const Arguments& arguments);   // `bench plan`
int run_bench_train(const Arguments& arguments);  // `bench train`
int run_plugins(const Arguments& arguments);
int run_explain(const Arguments& arguments);
int run_doctor(const Arguments& arguments);
int run_check(const Arguments& arguments);
int run_score(const Arguments& arguments);
int run_train(const Arguments& arguments);

// What a command says about itself for --help.
struct CommandText {
  std::string name;                   // "plan"
  std::string usage;                  // what follows the name
  std::string about;                  // a few lines
  std::vector<std::string> examples;  // whole command lines
};

enum class Need : uint8_t { kOptional, kRequired };

// The flags of one command: each is bound to a variable, whose value before parse() is the flag's default.
class Flags {
 public:
  explicit Flags(CommandText text);
  ~Flags();

  void add(const std::string& name, std::string& value, Need need, const std::string& shown, const std::string& about);
  void add(const std::string& name, int64_t& value, const std::string& shown, const std::string& about);
  void add(const std::string& name, double& value, const std::string& shown, const std::string& about);
  void add(const std::string& name, bool& value, const std::string& about);  // a switch
  void add(const std::string& name, std::vector<std::string>& values, const std::string& shown,
           const std::string& about);  // may be given several times
  // A required value without a flag in front of it, e.g. the file of `explain F.toml`.
  void add_positional(const std::string& name, std::string& value, const std::string& about);

  // False where --help was asked for and has been printed. Throws Error(kUsage): unknown flags with the nearest
  // spelling, words that belong to no flag, values that do not fit, flags given twice, all required flags that are
  // missing, one that is empty.
  bool parse(const Arguments& arguments);

  // Was the flag given on the command line? REQUIRES: parse() returned true.
  bool given(const std::string& name) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Prints a line on stdout.
void print_line(const std::string& line);

// One JSON document on one line, alone on stdout. Names of files may hold any bytes; what is not UTF-8 is shown as
// U+FFFD.
template <class Json>
void print_json(const Json& document) {
  print_line(document.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace));
}

// Columns of text, aligned; the first row is the heading. Columns of numbers are set to the right. A row that has fewer
// cells than the heading ends with a remark.
void print_table(const std::vector<std::vector<std::string>>& rows);

std::string with_separators(int64_t value);     // 1,234,567
std::string fixed(double value, int decimals);  // 3.14

}  // namespace attnmux::tool
