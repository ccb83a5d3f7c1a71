#include <algorithm>
#include <map>
#include <set>

#include "attnmux/error.h"
#include "attnmux/log.h"
#include "attnmux/selection.h"
#include "attnmux/spelling.h"
#include "glob.h"

namespace attnmux {
namespace {

// Not named quoted(): std::quoted would be found, too.
std::string in_quotes(const std::string& text) { return '"' + text + '"'; }

std::string joined(const std::vector<std::string>& parts, const std::string& separator = ", ") {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : separator) + part;
  return text;
}

std::string named(const SelectionRule& rule) {
  return "rule match = " + in_quotes(rule.match) + " (" + rule.origin + ")";
}

std::string refusals(const std::vector<Rejection>& rejected) {
  std::string text;
  for (const Rejection& rejection : rejected) {
    for (const Reason& reason : rejection.reasons) {
      text += "\n      " + rejection.backend + " refuses: " + reason.to_string();
    }
  }
  return text;
}

// Every problem found, those of the same text joined into one with all their modules.
class Problems {
 public:
  void add(ErrorCode code, const std::string& text) { add(code, text, ""); }
  void add(ErrorCode code, const std::string& text, const std::string& module) {
    auto [position, inserted] = index_.try_emplace({code, text}, problems_.size());
    if (inserted) problems_.push_back({code, text, {}});
    if (!module.empty()) problems_[position->second].modules.push_back(module);
  }

  void throw_if_any() const {
    if (problems_.empty()) return;
    std::string text = "no backend could be chosen for every attention module: " + std::to_string(problems_.size()) +
                       (problems_.size() == 1 ? " problem" : " problems");
    for (const Problem& problem : problems_) {
      text += "\n  " + std::string(to_string(problem.code)) + ": " + problem.text;
      if (!problem.modules.empty()) {
        text += "\n    in " + std::to_string(problem.modules.size()) +
                (problem.modules.size() == 1 ? " module: " : " modules: ") + joined(problem.modules);
      }
    }
    // The code of the whole is that of its most basic problem: fixing it may resolve the others.
    const auto first = std::min_element(problems_.begin(), problems_.end(),
                                        [](const Problem& a, const Problem& b) { return rank(a) < rank(b); });
    throw Error(first->code, text);
  }

 private:
  struct Problem {
    ErrorCode code;
    std::string text;
    std::vector<std::string> modules;
  };
  static int rank(const Problem& problem) {
    switch (problem.code) {
      case ErrorCode::kConfig: return 0;
      case ErrorCode::kUnknownBackend: return 1;
      case ErrorCode::kUnmatchedModule: return 2;
      case ErrorCode::kDeadRule: return 3;
      default: return 4;
    }
  }
  std::vector<Problem> problems_;
  std::map<std::pair<ErrorCode, std::string>, size_t> index_;
};

class Selector {
 public:
  Selector(const SelectionPolicy& policy, const std::vector<AttentionModule>& modules, const PluginRegistry& registry)
      : policy_(policy), modules_(modules), registry_(registry) {}

  SelectionTable run() {
    check_modules();
    for (const SelectionRule& rule : policy_.rules) check_rule(rule);
    std::vector<size_t> matched(policy_.rules.size(), 0), decided(policy_.rules.size(), 0);
    std::vector<const SelectionRule*> deciding(modules_.size(), nullptr);
    for (size_t r = 0; r < policy_.rules.size(); ++r) {
      const std::vector<std::string_view> pattern = path_segments(policy_.rules[r].match);
      for (size_t m = 0; m < modules_.size(); ++m) {
        if (!covers(policy_.rules[r], pattern, modules_[m])) continue;
        ++matched[r];
        if (deciding[m]) continue;
        deciding[m] = &policy_.rules[r];
        ++decided[r];
      }
    }
    check_dead_rules(matched, decided, deciding);
    std::vector<ModuleChoice> choices;
    for (size_t m = 0; m < modules_.size(); ++m) choose(modules_[m], deciding[m], choices);
    problems_.throw_if_any();
    for (const ModuleChoice& choice : choices) log_fallback(choice);
    return SelectionTable(std::move(choices));
  }

 private:
  static bool covers(const SelectionRule& rule, const std::vector<std::string_view>& pattern,
                     const AttentionModule& module) {
    return (rule.role.empty() || rule.role == module.role) && matches(pattern, path_segments(module.path));
  }

  void check_modules() {
    std::set<std::string> seen;
    for (const AttentionModule& module : modules_) {
      if (!seen.insert(module.path).second) {
        throw Error(ErrorCode::kInternal, "the model lists attention module " + in_quotes(module.path) + " twice");
      }
    }
  }

  void check_rule(const SelectionRule& rule) {
    if (const auto problem = pattern_problem(rule.match))
      problems_.add(ErrorCode::kConfig, named(rule) + ": " + *problem);
    if (rule.backend == "auto" && !rule.fallback.empty()) {
      problems_.add(ErrorCode::kConfig, named(rule) + ": \"auto\" already asks every backend; remove `fallback`");
    }
    if (rule.derived) return;  // counts only where it decides
    check_known(rule);
  }

  void check_known(const SelectionRule& rule) {
    if (rule.backend != "auto") check_known(rule, rule.backend, "backend");
    for (const std::string& id : rule.fallback) check_known(rule, id, "fallback");
  }

  void check_known(const SelectionRule& rule, const std::string& id, const std::string& key) {
    if (registry_.find(id)) return;
    const std::vector<std::string> known = registry_.backend_ids();
    problems_.add(ErrorCode::kUnknownBackend,
                  named(rule) + ": " + key + ": " +
                      (known.empty() ? in_quotes(id) + ": no backend is loaded at all; see `attnmux plugins`"
                                     : unknown_word("backend", id, known)));
  }

  void check_dead_rules(const std::vector<size_t>& matched, const std::vector<size_t>& decided,
                        const std::vector<const SelectionRule*>& deciding) {
    for (size_t r = 0; r < policy_.rules.size(); ++r) {
      const SelectionRule& rule = policy_.rules[r];
      if (rule.derived || decided[r] > 0 || pattern_problem(rule.match)) continue;
      if (matched[r] == 0) {
        std::vector<std::string> paths;
        for (const AttentionModule& module : modules_) paths.push_back(module.path);
        std::string text = named(rule) + " matches no attention module";
        if (const std::string close = nearest(rule.match, paths); !close.empty()) {
          text += "; the nearest is " + in_quotes(close);
        } else if (!paths.empty()) {
          text += "; the model's first is " + in_quotes(paths.front());
        }
        problems_.add(ErrorCode::kDeadRule, text);
        continue;
      }
      std::vector<std::string> earlier;
      const std::vector<std::string_view> pattern = path_segments(rule.match);
      for (size_t m = 0; m < modules_.size(); ++m) {
        if (!covers(rule, pattern, modules_[m])) continue;
        const std::string name = named(*deciding[m]);
        if (std::find(earlier.begin(), earlier.end(), name) == earlier.end()) earlier.push_back(name);
      }
      problems_.add(ErrorCode::kDeadRule, named(rule) + " decides nothing: each of the " + std::to_string(matched[r]) +
                                              " modules it matches is decided by an earlier rule, " +
                                              joined(earlier, " and ") + "; move it before, or remove it");
    }
  }

  // The backends a rule asks, in order.
  std::vector<std::string> candidates(const SelectionRule& rule) const {
    std::vector<std::string> ids;
    if (rule.backend != "auto") {
      ids.push_back(rule.backend);
      ids.insert(ids.end(), rule.fallback.begin(), rule.fallback.end());
      return ids;
    }
    std::map<std::string, int32_t> priority;
    for (const std::string& id : registry_.backend_ids()) {
      priority[id] = registry_.find(id)->info().auto_priority;
      if (priority[id] >= 0) ids.push_back(id);
    }
    std::stable_sort(ids.begin(), ids.end(),
                     [&](const std::string& a, const std::string& b) { return priority[a] > priority[b]; });
    return ids;
  }

  void choose(const AttentionModule& module, const SelectionRule* rule, std::vector<ModuleChoice>& choices) {
    if (!rule) {
      problems_.add(ErrorCode::kUnmatchedModule,
                    "no rule matches; add to the TOML file:  [[attention.rules]] match = \"**\" backend = \"magi\" " +
                        std::string("(or another id of `attnmux plugins`)"),
                    module.path);
      return;
    }
    if (rule->derived) check_known(*rule);
    ModuleChoice choice{.module = module, .rule = *rule};
    const AttentionRequest request = request_of_parts(required_request(module, *rule));
    for (const std::string& id : candidates(*rule)) {
      const std::shared_ptr<const AttentionBackend> backend = registry_.find(id);
      if (!backend) return;  // reported as an unknown backend
      Support support = backend->query(request);
      if (!support.ok()) {
        choice.rejected.push_back({id, std::move(support.reasons)});
        continue;
      }
      choice.backend_id = id;
      choice.backend = backend;
      choice.fell_back = rule->backend != "auto" && id != rule->backend;
      if (choice.fell_back && policy_.strict) {
        problems_.add(ErrorCode::kUnsupported,
                      named(*rule) + " would fall back from " + in_quotes(rule->backend) + " to " + in_quotes(id) +
                          ", and `strict = true` forbids that; choose " + in_quotes(id) +
                          " as its backend, or remove strict" + refusals(choice.rejected),
                      module.path);
        return;
      }
      choices.push_back(std::move(choice));
      return;
    }
    std::string text = named(*rule) + ": ";
    if (rule->backend == "auto") {
      text += choice.rejected.empty() ? "\"auto\" found no backend to ask" : "\"auto\": every backend refuses";
    } else {
      text +=
          "backend " + in_quotes(rule->backend) +
          (rule->fallback.empty() ? " refuses, and no `fallback` is written" : " and every written fallback refuse");
    }
    problems_.add(ErrorCode::kUnsupported, text + refusals(choice.rejected), module.path);
  }

  static void log_fallback(const ModuleChoice& choice) {
    if (!choice.fell_back) return;
    log_warning("module " + choice.module.path + " falls back from " + in_quotes(choice.rule.backend) + " to " +
                in_quotes(choice.backend_id) + ", as written in " + named(choice.rule) + refusals(choice.rejected));
  }

  const SelectionPolicy& policy_;
  const std::vector<AttentionModule>& modules_;
  const PluginRegistry& registry_;
  Problems problems_;
};

}  // namespace

AttentionRequest required_request(const AttentionModule& module, const SelectionRule& rule) {
  AttentionRequest request = module.request;
  request.deterministic = request.deterministic || rule.require_deterministic;
  return request;
}

AttentionRequest request_of_parts(AttentionRequest request) {
  if (request.cp_size == 1) return request;
  request.masks.insert(MaskFamily::kArbitrary);
  request.cross_lengths = true;
  request.empty_rows = false;  // a part has those rows that attend some of its keys
  return request;
}

std::vector<Rejection> ask_others(const ModuleChoice& choice, const PluginRegistry& registry) {
  const AttentionRequest request = request_of_parts(required_request(choice.module, choice.rule));
  std::vector<Rejection> answers;
  for (const std::string& id : registry.backend_ids()) {
    if (id != choice.backend_id) answers.push_back({id, registry.find(id)->query(request).reasons});
  }
  return answers;
}

SelectionTable select(const SelectionPolicy& policy, const std::vector<AttentionModule>& modules,
                      const PluginRegistry& registry) {
  return Selector(policy, modules, registry).run();
}

}  // namespace attnmux
