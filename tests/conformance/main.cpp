// attnmux-check: what `attnmux check` executes. A program of its own, so that GoogleTest and an operator new that
// counts stay out of the others. See README.md.
#include <c10/util/Exception.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>

#include "attnmux/error.h"
#include "attnmux/log.h"
#include "conformance/new_plugin.h"
#include "conformance/rank_process.h"
#include "conformance/report.h"
#include "conformance/run.h"
#include "conformance/worker.h"
#include "conformance/worker_process.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/progress.h"

namespace attnmux::conformance {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// A report file, tried before the run: a path that cannot be written is known before minutes are spent. What lay there
// stays until there is a report to take its place.
class ReportFile {
 public:
  ReportFile(const std::string& flag, const std::string& path)
      : path_(path), was_there_(std::filesystem::exists(path)) {
    if (path.empty()) return;
    if (!std::ofstream(path, std::ios::binary | std::ios::app)) {
      throw Error(ErrorCode::kUsage, flag + " " + path + ": cannot be written; name a file in a folder that is there");
    }
  }
  ~ReportFile() {
    std::error_code ignored;
    if (!path_.empty() && !was_there_ && !written_) std::filesystem::remove(path_, ignored);
  }
  ReportFile(const ReportFile&) = delete;
  ReportFile& operator=(const ReportFile&) = delete;

  void write(const std::string& text) {
    if (path_.empty()) return;
    written_ = true;
    std::ofstream stream(path_, std::ios::binary | std::ios::trunc);
    stream << text << std::flush;
    if (!stream) throw Error(ErrorCode::kIo, path_ + ": could not be written to its end");
  }

 private:
  std::string path_;
  bool was_there_;
  bool written_ = false;
};

int new_plugin(const std::vector<std::string>& words) {
  if (words.size() != 2) {
    throw Error(ErrorCode::kUsage, "attnmux check --new-plugin takes a folder and a name: --new-plugin DIR NAME");
  }
  for (const std::string& file : write_new_plugin(words[0], words[1])) tool::print_line("wrote " + file);
  tool::print_line("next: cmake -S " + words[0] + " -B " + words[0] +
                   "/build -DCMAKE_PREFIX_PATH=<where attnmux is installed>");
  return 0;
}

int check(std::vector<std::string> arguments) {
  if (!arguments.empty() && arguments[0] == "--new-plugin") {
    return new_plugin({arguments.begin() + 1, arguments.end()});
  }
  RunOptions options;
  std::string profile = "core", json, junit_file;
  int64_t seed = 7;
  tool::Flags flags({.name = "check",
                     .usage = "--plugin FILE.so [--profile NAME] [flags]  |  --group threads --profile cp  |  "
                              "--new-plugin DIR NAME",
                     .about = "Certifies an attention backend: loads the plugin in processes of its own, compares it "
                              "with float64 on\nmasks of every kind, and looks after memory, threads, errors and "
                              "promises. Certifies a group of ranks\nlikewise (profile cp): what it moves, sums and "
                              "says when a rank fails; a plugin's ranks are started by\nmpirun. --new-plugin writes "
                              "the template of a plugin instead.\nProfiles: " +
                              joined(profile_names()) +
                              ". Exit status: 0 certified (or, of a part, passed), 1 failed, 2 usage, 3\nnothing was "
                              "executed, 4 the plugin could not be loaded.",
                     .examples = {"attnmux check --plugin ./acme.so --profile train --json acme.json",
                                  "attnmux check --plugin ./acme_group.so --profile cp",
                                  "attnmux check --plugin ./acme.so --case "
                                  "'fwd/mask=causal,sq=257,sk=513,hq=8,hk=2,d=128,dt=bf16,seed=7'",
                                  "attnmux check --new-plugin acme acme"}});
  flags.add("plugin", options.plugin, tool::Need::kOptional, "FILE.so", "the plugin");
  flags.add("backend", options.backend, tool::Need::kOptional, "ID", "which of its backends, where it has several");
  flags.add("group", options.group, tool::Need::kOptional, "ID",
            "which of its groups of ranks; without --plugin: threads, which is built in");
  flags.add("profile", profile, tool::Need::kOptional, "NAME", "what it is certified for: " + joined(profile_names()));
  flags.add("device", options.device, tool::Need::kOptional, "NAME", "cpu, cuda or cuda:1");
  flags.add("case", options.cases, "CASE", "this case alone; may be repeated");
  flags.add("family", options.families, "NAME", "this family alone; may be repeated");
  flags.add("seed", seed, "N", "of all random numbers");
  flags.add("timeout", options.seconds, "S", "seconds that a case may take, 60 unless given");
  flags.add("json", json, tool::Need::kOptional, "FILE", "the scorecard");
  flags.add("junit", junit_file, tool::Need::kOptional, "FILE", "the results as JUnit XML");
  if (!flags.parse(arguments)) return 0;
  if (options.plugin.empty() && options.group.empty()) {
    throw Error(ErrorCode::kUsage,
                "attnmux check: name a plugin with --plugin, or a group that is built in with "
                "--group threads");
  }
  options.profile = find_profile(profile);
  if (seed < 0) throw Error(ErrorCode::kUsage, "--seed " + std::to_string(seed) + ": expected 0 or more");
  if (!(options.seconds > 0)) throw Error(ErrorCode::kUsage, "--timeout must be above 0");
  options.seed = static_cast<uint64_t>(seed);
  for (const std::string& family : options.families) {
    if (!options.profile.runs(parse_family(family))) {
      throw Error(ErrorCode::kUsage, "--family " + family + " is not part of profile " + profile + "; see --profile");
    }
  }
  for (const std::string& text : options.cases) parse_case(text);
  ReportFile scorecard_file("--json", json), xml_file("--junit", junit_file);

  RunReport report;
  std::optional<tool::Progress> progress;
  options.progress = [&](int64_t done, int64_t total, const std::string& next) {
    if (!progress) progress.emplace(total);
    progress->update(done, next);
  };
  try {
    report = run(options);
    progress.reset();
  } catch (const Error& error) {
    if (exit_status(error.code()) == 4) {
      tool::print_line("not loaded (" + std::string(to_string(error.code())) + ")");
      scorecard_file.write(scorecard_not_loaded(error, options));
    }
    throw;
  }
  tool::print_line(table(report, options));
  scorecard_file.write(scorecard(report, options));
  xml_file.write(junit(report, options));
  return report.exit_status();
}

}  // namespace
}  // namespace attnmux::conformance

int main(int argc, char** argv) {
  using namespace attnmux;
  if (argc == 2 && std::strcmp(argv[1], conformance::kWorkerFlag) == 0) conformance::run_worker();
  if (argc == 3 && std::strcmp(argv[1], conformance::kRankFlag) == 0) conformance::run_rank(argv[2]);
  try {
    const int status = conformance::check({argv + 1, argv + argc});
    std::cout.flush();
    if (!std::cout)
      throw Error(ErrorCode::kIo, "stdout could not take the answer (disk full, or closed by its reader)");
    return status;
  } catch (const Error& error) {
    log_error(error.what());
    return exit_status(error.code());
  } catch (const std::exception& error) {
    log_error(error.what());
    return exit_status(ErrorCode::kInternal);
  }
}
