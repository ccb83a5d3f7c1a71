#include <algorithm>

#include "attnmux/error.h"
#include "attnmux/selection.h"
#include "attnmux/spelling.h"

namespace attnmux {
namespace {

void add(Hasher& hasher, const std::string& text) {
  hasher.add(static_cast<uint64_t>(text.size()));
  hasher.add_bytes(text.data(), text.size());
}

void add(Hasher& hasher, const AttentionRequest& request) {
  add(hasher, request.masks.to_string());
  hasher.add(request.cross_lengths);
  hasher.add(request.empty_rows);
  hasher.add(request.dtype);
  hasher.add(request.heads_q);
  hasher.add(request.heads_kv);
  hasher.add(request.head_dim);
  hasher.add(request.head_dim_v);
  hasher.add(request.max_tokens);
  hasher.add(request.layout);
  hasher.add(request.device);
  hasher.add(request.device_arch);
  hasher.add(request.training);
  hasher.add(request.deterministic);
  hasher.add(request.cp_size);
  hasher.add(request.softcap);
  hasher.add(request.attention_sink);
  hasher.add(request.dropout);
}

}  // namespace

SelectionTable::SelectionTable(std::vector<ModuleChoice> choices) : choices_(std::move(choices)) {}

const ModuleChoice& SelectionTable::at(const std::string& path) const {
  const auto found = std::find_if(choices_.begin(), choices_.end(),
                                  [&](const ModuleChoice& choice) { return choice.module.path == path; });
  if (found != choices_.end()) return *found;
  std::vector<std::string> paths;
  for (const ModuleChoice& choice : choices_) paths.push_back(choice.module.path);
  std::string text = "module \"" + path + "\" is not in the selection table of " + std::to_string(paths.size()) +
                     " modules: the model layer must list it before weights load";
  if (const std::string close = nearest(path, paths); !close.empty()) text += "; did you mean \"" + close + "\"?";
  throw Error(ErrorCode::kUnmatchedModule, text);
}

Hash128 SelectionTable::hash() const {
  Hasher hasher;
  for (const ModuleChoice& choice : choices_) {
    add(hasher, choice.module.path);
    add(hasher, choice.module.role);
    add(hasher, choice.module.mask_key);
    add(hasher, choice.backend_id);
    add(hasher, required_request(choice.module, choice.rule));
  }
  return hasher.finish();
}

}  // namespace attnmux
