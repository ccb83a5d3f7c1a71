#include "conformance/run.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "attnmux/abi_tag.h"
#include "attnmux/error.h"
#include "attnmux/spelling.h"
#include "conformance/grid.h"
#include "conformance/sha256.h"
#include "conformance/worker_process.h"

namespace attnmux::conformance {
namespace {

using nlohmann::json;

constexpr int kMaxEnds = 3;  // of a family's workers before its other cases are given up

std::string secret() {
  std::random_device device;
  std::string text;
  for (int i = 0; i < 8; ++i) text += std::to_string(device());
  return text;
}

// The answer in a line, if it carries the secret; null otherwise.
json answer_in(const std::string& line, const std::string& secret) {
  json answer = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object() || answer.value("secret", json()) != json(secret)) return nullptr;
  return answer;
}

ErrorCode code_of(const std::string& text) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    if (to_string(static_cast<ErrorCode>(code)) == text) return static_cast<ErrorCode>(code);
  }
  return ErrorCode::kInternal;
}

std::string last_words(const WorkerEnd& end) {
  return end.printed.empty() ? "" : "\n  it printed last: " + end.printed;
}

// Before any of its code runs: what the file itself says.
void examine_file(const std::string& file) {
  const AbiTag tag = read_abi_tag(file);
  const std::vector<AbiMismatch> mismatches = compare_abi(host_abi_tag(), tag);
  if (!mismatches.empty()) throw Error(ErrorCode::kAbiMismatch, describe(file, mismatches));
}

json described(const RunOptions& options) {
  const std::string key = secret();
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
    throw Error(ErrorCode::kInitFailed,
                options.plugin + ": the process that loads it ended before it was done: " + end.how + last_words(end));
  }
  return description;
}

// Runs cases[from...] in one worker; returns how many were finished or given up, and appends their results.
size_t run_worker_once(const RunOptions& options, const std::string& backend, const std::vector<std::string>& cases,
                       size_t from, std::vector<CaseResult>& results, bool& ended_early) {
  const std::string key = secret();
  const std::vector<std::string> left(cases.begin() + static_cast<std::ptrdiff_t>(from), cases.end());
  const json job = {
      {"secret", key}, {"kind", "cases"}, {"device", options.device}, {"backend", backend}, {"cases", left}};
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
  lost.failures.push_back(
      {end.timed_out ? "timeout" : "crash",
       (error.empty() ? "the process ended before the case was recorded: " + end.how : error) + last_words(end)});
  results.push_back(lost);
  return std::min(finished + 1, left.size());
}

void run_family(const RunOptions& options, const std::string& backend, const std::vector<std::string>& cases,
                std::vector<CaseResult>& results) {
  int ends = 0;
  for (size_t at = 0; at < cases.size();) {
    bool ended_early = false;
    at += run_worker_once(options, backend, cases, at, results, ended_early);
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

// Case strings by family, in order.
std::vector<std::vector<std::string>> planned(const RunOptions& options, const json& backend) {
  std::vector<std::vector<std::string>> families;
  for (const std::string& text : options.cases) families.push_back({to_string(parse_case(text))});
  if (!options.cases.empty()) return families;
  GridOptions grid_options{
      .gradients = options.profile.gradients, .on_gpu = options.device != "cpu", .seed = options.seed};
  if (backend["usual"].is_object()) {
    grid_options.d = backend["usual"]["d"];
    grid_options.dt = parse_dtype(backend["usual"]["dt"].get<std::string>());
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

json chosen_backend(const json& description, const std::string& wanted) {
  std::vector<std::string> ids;
  for (const json& backend : description["backends"]) {
    ids.push_back(backend["id"]);
    if (backend["id"] == wanted) return backend;
  }
  if (ids.empty()) {
    throw Error(ErrorCode::kUsage, "the plugin registers no attention backend; there is no profile for what it offers");
  }
  if (wanted.empty() && ids.size() == 1) return description["backends"][0];
  if (wanted.empty()) {
    std::string text = "the plugin registers several backends; name one with --backend:";
    for (const std::string& id : ids) text += " " + id;
    throw Error(ErrorCode::kUsage, text);
  }
  throw Error(ErrorCode::kUsage, unknown_word("backend", wanted, ids));
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
  options.plugin = std::filesystem::absolute(given.plugin).lexically_normal().string();
  if (options.plugin.find(':') != std::string::npos) {
    throw Error(ErrorCode::kUsage, options.plugin + ": a plugin's path must not hold ':'; copy or link it elsewhere");
  }
  const auto begin = std::chrono::steady_clock::now();
  examine_file(options.plugin);
  RunReport report;
  report.sha256 = sha256_of_file(options.plugin);
  const json description = described(options);
  const json backend = chosen_backend(description, options.backend);
  report.plugin = {description["id"], description["version"], description["vendor"], {}};
  for (const auto& [field, value] : description["abi"].items()) report.plugin.abi.emplace_back(field, value);
  report.backend = {backend["id"], backend["version"], backend["description"]};
  const std::vector<std::vector<std::string>> families = planned(options, backend);
  int64_t total = 0, done = 0;
  for (const std::vector<std::string>& cases : families) total += static_cast<int64_t>(cases.size());
  for (const std::vector<std::string>& cases : families) {
    if (options.progress) options.progress(done, total, cases.front().substr(0, cases.front().find('/')));
    run_family(options, report.backend.id, cases, report.results);
    done += static_cast<int64_t>(cases.size());
  }
  if (options.progress) options.progress(done, total, "done");
  if (!options.partial()) report.missing = options.profile.unmet(report.results);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

}  // namespace attnmux::conformance
