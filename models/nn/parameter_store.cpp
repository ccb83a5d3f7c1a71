#include "models/nn/parameter_store.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <utility>

#include "attnmux/error.h"
#include "models/io/safetensors.h"

namespace attnmux {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::ostringstream text;
  text << '[';
  for (size_t i = 0; i < shape.size(); ++i) text << (i == 0 ? "" : ", ") << shape[i];
  text << ']';
  return text.str();
}

bool ends_with(const std::string& text, const std::string& suffix) { return text.ends_with(suffix); }

// Problems of one checkpoint, reported together.
class Problems {
 public:
  explicit Problems(std::string dir) : dir_(std::move(dir)) {}
  void add(const std::string& line) { lines_.push_back(line); }
  void throw_if_any() const {
    if (lines_.empty()) return;
    constexpr size_t kShown = 40;
    std::ostringstream text;
    text << dir_ << ": the weights do not fit config.json, " << lines_.size() << " problem(s):";
    for (size_t i = 0; i < lines_.size() && i < kShown; ++i) text << "\n  " << lines_[i];
    if (lines_.size() > kShown) text << "\n  and " << lines_.size() - kShown << " more";
    text << "\nUse the config.json and the *.safetensors of one and the same model.";
    throw Error(ErrorCode::kBadFile, text.str());
  }

 private:
  std::string dir_;
  std::vector<std::string> lines_;
};

// The name under which the folder holds the parameter.
const std::string& stored_name(const SafetensorsFolder& folder, const ParameterSpec& spec) {
  return !folder.contains(spec.name) && folder.contains(spec.stored_as) ? spec.stored_as : spec.name;
}

void check_spec(const SafetensorsFolder& folder, const ParameterSpec& spec, Problems& problems) {
  const std::string& name = stored_name(folder, spec);
  if (!folder.contains(name)) {
    problems.add("missing: " + spec.name + " " + shape_text(spec.shape));
    return;
  }
  const SafetensorsInfo info = folder.info(name);
  if (info.shape != spec.shape) {
    problems.add("shape: " + name + " is " + shape_text(info.shape) + " in " + folder.file_of(name) +
                 ", config.json asks for " + shape_text(spec.shape));
  }
  if (!at::isFloatingType(info.dtype)) {
    problems.add("dtype: " + name + " is " + std::string(info.dtype_name) + " in " + folder.file_of(name) +
                 "; allowed are F32, BF16, F16 and F64");
  }
}

void check_surplus(const SafetensorsFolder& folder, const std::string& name, const std::vector<ParameterSpec>& specs,
                   const std::vector<IgnoredTensor>& ignored, Problems& problems) {
  for (const IgnoredTensor& entry : ignored) {
    if (!ends_with(name, entry.suffix)) continue;
    if (entry.same_as.empty()) return;
    const auto spec = std::find_if(specs.begin(), specs.end(), [&](const auto& s) { return s.name == entry.same_as; });
    const std::string& twin = stored_name(folder, *spec);
    if (!folder.contains(twin)) return;  // reported as missing
    if (at::equal(folder.tensor(name), folder.tensor(twin))) return;
    problems.add("tied: " + name + " in " + folder.file_of(name) + " differs from " + entry.same_as +
                 ", though config.json ties them (tie_word_embeddings)");
    return;
  }
  problems.add("surplus: " + name + " " + shape_text(folder.info(name).shape) + " in " + folder.file_of(name));
}

}  // namespace

ParameterStore ParameterStore::load(const std::string& dir, const std::vector<ParameterSpec>& specs,
                                    const std::vector<IgnoredTensor>& ignored, const LoadOptions& options) {
  const SafetensorsFolder folder = SafetensorsFolder::open(dir);
  Problems problems(dir);
  std::set<std::string> expected;
  for (const ParameterSpec& spec : specs) {
    expected.insert(stored_name(folder, spec));
    check_spec(folder, spec, problems);
  }
  for (const std::string& name : folder.names()) {
    if (!expected.contains(name)) check_surplus(folder, name, specs, ignored, problems);
  }
  problems.throw_if_any();

  ParameterStore store;
  for (const ParameterSpec& spec : specs) {
    const at::Tensor mapped = folder.tensor(stored_name(folder, spec));
    at::Tensor parameter = mapped.to(options.dtype, /*non_blocking=*/false, /*copy=*/options.training);
    if (options.training) {
      parameter.requires_grad_(true);
      // What several backward passes and ranks add to it is added up in fp32.
      if (at::isReducedFloatingType(options.dtype)) parameter.set_grad_dtype(at::kFloat);
    }
    store.add(spec.name, std::move(parameter));
  }
  return store;
}

void ParameterStore::add(const std::string& name, at::Tensor parameter) {
  if (!parameters_.emplace(name, std::move(parameter)).second) {
    throw Error(ErrorCode::kInternal, "parameter " + name + " was added twice");
  }
  names_.push_back(name);
}

const at::Tensor& ParameterStore::at(const std::string& name) const {
  const auto found = parameters_.find(name);
  if (found == parameters_.end()) throw Error(ErrorCode::kInternal, "the model has no parameter " + name);
  return found->second;
}

std::vector<at::Tensor> ParameterStore::tensors() const {
  std::vector<at::Tensor> tensors;
  tensors.reserve(names_.size());
  for (const std::string& name : names_) tensors.push_back(parameters_.at(name));
  return tensors;
}

int64_t ParameterStore::element_count() const {
  int64_t count = 0;
  for (const auto& [name, parameter] : parameters_) count += parameter.numel();
  return count;
}

}  // namespace attnmux
