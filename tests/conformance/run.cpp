#include "conformance/run.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "attnmux/abi_tag.h"
#include "attnmux/cp_group.h"
#include "attnmux/error.h"
#include "attnmux/spelling.h"
#include "conformance/grid.h"
#include "conformance/group_run.h"
#include "conformance/line_channel.h"
#include "conformance/mpirun_launch.h"
#include "conformance/sha256.h"
#include "conformance/worker_process.h"

namespace attnmux::conformance {
namespace {

using nlohmann::json;

constexpr int kMaxEnds = 3;  // of a family's workers before its other cases are given up

ErrorCode code_of(const std::string& text) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    if (to_string(static_cast<ErrorCode>(code)) == text) return static_cast<ErrorCode>(code);
  }
  return ErrorCode::kInternal;
}

// Before any of its code runs: what the file itself says.
void examine_file(const std::string& file) {
  const AbiTag tag = read_abi_tag(file);
  const std::vector<AbiMismatch> mismatches = compare_abi(host_abi_tag(), tag);
  if (!mismatches.empty()) throw Error(ErrorCode::kAbiMismatch, describe(file, mismatches));
}

json described(const RunOptions& options) {
  const std::string key = new_secret();
  WorkerProcess worker(json{{"secret", key}, {"kind", "describe"}, {"device", options.device}}.dump(),
                       {.plugin = options.plugin, .seconds = options.seconds});
  json description;
  bool done = false;
  while (const auto line = worker.next_line()) {
    const json answer = answer_in(*line, key);
    if (answer.contains("error")) throw Error(code_of(answer["error"]), answer["text"]);
    if (answer.contains("described")) description = answer["described"];
    if (answer.contains("done")) {
      done = true;
      break;
    }
  }
  const WorkerEnd end = worker.end();
  if (!done || !end.clean) {
    throw Error(ErrorCode::kInitFailed, options.plugin + ": the process that loads it ended before it was done: " +
                                            end.how + last_words(end.printed));
  }
  return description;
}

// Runs cases[from...] in one worker; returns how many were finished or given up, and appends their results.
size_t run_worker_once(const RunOptions& options, const SubjectText& subject, const std::vector<std::string>& cases,
                       size_t from, std::vector<CaseResult>& results, bool& ended_early) {
  const std::string key = new_secret();
  const std::vector<std::string> left(cases.begin() + static_cast<std::ptrdiff_t>(from), cases.end());
  json job = {
      {"secret", key}, {"kind", "cases"}, {"device", options.device}, {subject.kind, subject.id}, {"cases", left}};
  if (is_of_groups(parse_case(left.front()).family)) job["kind"] = "threads";
  WorkerProcess worker(job.dump(), {.plugin = options.plugin, .seconds = options.seconds});
  size_t finished = 0;
  bool done = false;
  std::string error;
  while (!done && error.empty()) {
    const auto line = worker.next_line();
    if (!line) break;
    const json answer = answer_in(*line, key);
    if (answer.contains("end") && answer["end"] == finished) {
      results.push_back(from_record(answer["record"]));
      ++finished;
    }
    if (answer.contains("error")) error = answer["text"];
    done = answer.contains("done") && finished == left.size();
  }
  const WorkerEnd end = worker.end();
  if (end.flooded && !results.empty()) results.back().warn("printed more than a megabyte");
  ended_early = !done || !end.clean;
  if (!ended_early) return finished;
  CaseResult lost;
  // A worker that finished its cases and did not end well failed in shutdown or behind it.
  lost.name = finished < left.size() ? left[finished] : left.back() + " (shutdown)";
  lost.status = end.timed_out ? Status::kTimeout : Status::kCrash;
  lost.failures.push_back({end.timed_out ? "timeout" : "crash",
                           (error.empty() ? "the process ended before the case was recorded: " + end.how : error) +
                               last_words(end.printed)});
  results.push_back(lost);
  return std::min(finished + 1, left.size());
}

void run_family(const RunOptions& options, const SubjectText& subject, const std::vector<std::string>& cases,
                std::vector<CaseResult>& results) {
  if (is_of_groups(parse_case(cases.front()).family) && !options.plugin.empty()) {
    run_group_on_processes({.plugin = options.plugin, .id = subject.id, .seconds = options.seconds}, cases, results);
    return;
  }
  int ends = 0;
  for (size_t at = 0; at < cases.size();) {
    bool ended_early = false;
    at += run_worker_once(options, subject, cases, at, results, ended_early);
    if (!ended_early || ++ends < kMaxEnds) continue;
    for (; at < cases.size(); ++at) {
      CaseResult lost;
      lost.name = cases[at];
      lost.status = Status::kCrash;
      lost.failures.push_back(
          {"crash", "not run: the process of this family ended " + std::to_string(ends) + " times"});
      results.push_back(lost);
    }
  }
}

bool concerns(Family family, const RunOptions& options, const SubjectText& subject) {
  if (subject.kind == "backend") return !is_of_groups(family);
  return is_of_groups(family) || (family == Family::kMeta && !options.plugin.empty());
}

void require_concern(const RunOptions& options, const SubjectText& subject, Family family, const std::string& asked) {
  if (concerns(family, options, subject)) return;
  throw Error(ErrorCode::kUsage, asked + " asks nothing of " + subject.kind + " " + subject.id + ": " +
                                     (is_of_groups(family) ? "it is for groups of ranks" : "it is for backends"));
}

// Case strings by family, in order. `usual`: the dtype and head_dim of most cases, null where none is taken.
std::vector<std::vector<std::string>> planned(const RunOptions& options, const SubjectText& subject,
                                              const json& usual) {
  std::vector<std::vector<std::string>> families;
  for (const std::string& text : options.cases) {
    const Case c = parse_case(text);
    require_concern(options, subject, c.family, "case " + text);
    families.push_back({to_string(c)});
  }
  if (!options.cases.empty()) return families;
  for (const std::string& name : options.families) {
    require_concern(options, subject, parse_family(name), "family " + name);
  }
  GridOptions grid_options{
      .gradients = options.profile.gradients, .on_gpu = options.device != "cpu", .seed = options.seed};
  if (usual.is_object()) {
    grid_options.d = usual["d"];
    grid_options.dt = parse_dtype(usual["dt"].get<std::string>());
  }
  for (const Family family : options.profile.families) {
    const std::string name(to_string(family));
    if (!options.families.empty() &&
        std::find(options.families.begin(), options.families.end(), name) == options.families.end()) {
      continue;
    }
    std::vector<std::string> cases;
    for (const Case& c : grid(family, grid_options)) cases.push_back(to_string(c));
    if (!cases.empty()) families.push_back(std::move(cases));
  }
  return families;
}

// What of a plugin's is certified: the one that is named, or the only one.
struct Chosen {
  std::string kind;
  json text;
};
Chosen choose(const json& description, const RunOptions& options) {
  if (!options.backend.empty() && !options.group.empty()) {
    throw Error(ErrorCode::kUsage, "--backend and --group: name one, it is certified alone");
  }
  std::vector<Chosen> offered;
  for (const json& backend : description["backends"]) offered.push_back({"backend", backend});
  for (const json& group : description["groups"]) offered.push_back({"group", group});
  const std::string kind = !options.backend.empty() ? "backend" : !options.group.empty() ? "group" : "";
  const std::string& wanted = kind == "backend" ? options.backend : options.group;
  if (kind.empty() && offered.size() == 1) return offered.front();
  std::vector<std::string> ids;
  std::string flags;
  for (const Chosen& one : offered) {
    if (one.kind == kind && one.text["id"] == wanted) return one;
    if (one.kind == kind) ids.push_back(one.text["id"]);
    flags += " --" + one.kind + " " + one.text["id"].get<std::string>();
  }
  if (kind.empty()) throw Error(ErrorCode::kUsage, "the plugin registers several things; name one of" + flags);
  if (ids.empty()) throw Error(ErrorCode::kUsage, "the plugin registers no " + kind + "; what it has is" + flags);
  throw Error(ErrorCode::kUsage, unknown_word(kind, wanted, ids));
}

constexpr char kThreads[] = "threads";

// The group that is part of the core: the library is what is certified.
RunReport built_in_group(const RunOptions& options) {
  if (options.group != kThreads) {
    throw Error(ErrorCode::kUsage, unknown_word("group", options.group, {kThreads}) +
                                       ". Others come from a plugin: name it with --plugin");
  }
  Dl_info core{};
  if (::dladdr(reinterpret_cast<const void*>(&run_threads_group), &core) == 0) {
    throw Error(ErrorCode::kInternal, "the core library's file is not known");
  }
  RunReport report;
  report.file = std::filesystem::canonical(core.dli_fname).string();
  report.plugin = {"attnmux", ATTNMUX_VERSION, "attnmux", {}};
  for (const AbiFieldText& field : abi_fields(host_abi_tag())) report.plugin.abi.emplace_back(field.field, field.value);
  report.subject = {"group", kThreads, ATTNMUX_VERSION, "ranks as threads of one process"};
  return report;
}

// From here on nothing is asked that does not concern the subject.
Profile narrowed(const RunOptions& options, const SubjectText& subject) {
  Profile part = options.profile.of_families([&](Family family) { return concerns(family, options, subject); });
  if (subject.kind == "group" && !part.runs(Family::kGroup)) {
    throw Error(ErrorCode::kUsage, "profile " + options.profile.name + " asks nothing of a group of ranks, which " +
                                       subject.id + " is; pass --profile cp");
  }
  if (part.runs(Family::kCp) && options.device != "cpu") {
    throw Error(ErrorCode::kUsage, "profile " + options.profile.name +
                                       " runs ranks of one process, which exchange tensors of the CPU; certify it with "
                                       "--device cpu, and --profile train with --device " +
                                       options.device);
  }
  if (subject.kind == "group" && options.device != "cpu") {
    throw Error(ErrorCode::kUsage, "--device " + options.device +
                                       ": groups of ranks are certified with tensors of the "
                                       "CPU; leave the flag away");
  }
  return part;
}

RunReport examine(const RunOptions& options, json& usual) {
  if (options.plugin.empty()) return built_in_group(options);
  examine_file(options.plugin);
  const json description = described(options);
  const Chosen chosen = choose(description, options);
  if (chosen.kind == "backend") usual = chosen.text["usual"];
  RunReport report;
  report.file = options.plugin;
  report.plugin = {description["id"], description["version"], description["vendor"], {}};
  for (const auto& [field, value] : description["abi"].items()) report.plugin.abi.emplace_back(field, value);
  report.subject = {chosen.kind, chosen.text["id"], chosen.text["version"], chosen.text["description"]};
  return report;
}

}  // namespace

// The file's and the query's cases say nothing about attention.
static bool is_call(const CaseResult& result) {
  return !result.name.starts_with("meta/") && !result.name.starts_with("query/");
}

bool RunReport::any_executed() const {
  const bool any_call = std::any_of(results.begin(), results.end(), is_call);
  return std::any_of(results.begin(), results.end(),
                     [&](const CaseResult& result) { return result.executed() && (is_call(result) || !any_call); });
}

bool RunReport::any_bad() const {
  return std::any_of(results.begin(), results.end(), [](const CaseResult& result) { return result.bad(); });
}

bool RunReport::certified(const RunOptions& options) const {
  return !options.partial() && !any_bad() && missing.empty() && any_executed();
}

std::string RunReport::verdict(const RunOptions& options) const {
  if (options.partial()) return any_bad() ? "partial: failed" : "partial: passed";
  return (certified(options) ? "certified: " : "failed: ") + options.profile.name;
}

int RunReport::exit_status() const {
  if (any_bad()) return 1;
  if (!any_executed()) return 3;
  return missing.empty() ? 0 : 1;
}

RunReport run(const RunOptions& given) {
  RunOptions options = given;
  if (!given.plugin.empty()) options.plugin = std::filesystem::absolute(given.plugin).lexically_normal().string();
  if (options.plugin.find(':') != std::string::npos) {
    throw Error(ErrorCode::kUsage, options.plugin + ": a plugin's path must not hold ':'; copy or link it elsewhere");
  }
  const auto begin = std::chrono::steady_clock::now();
  json usual;
  RunReport report = examine(options, usual);
  report.sha256 = sha256_of_file(report.file);
  options.profile = narrowed(options, report.subject);
  if (report.subject.kind == "group" && !options.plugin.empty()) find_mpirun();
  const std::vector<std::vector<std::string>> families = planned(options, report.subject, usual);
  int64_t total = 0, done = 0;
  for (const std::vector<std::string>& cases : families) total += static_cast<int64_t>(cases.size());
  for (const std::vector<std::string>& cases : families) {
    if (options.progress) options.progress(done, total, cases.front().substr(0, cases.front().find('/')));
    run_family(options, report.subject, cases, report.results);
    done += static_cast<int64_t>(cases.size());
  }
  if (options.progress) options.progress(done, total, "done");
  if (!options.partial()) report.missing = options.profile.unmet(report.results);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

}  // namespace attnmux::conformance
