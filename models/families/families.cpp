#include "models/families/families.h"

#include <algorithm>

#include "attnmux/error.h"
#include "models/io/atomic_file.h"

namespace attnmux {

// One line for each family: NAME_family() in NAME.cpp.
// clang-format off
#define ATTNMUX_FAMILIES(FAMILY) \
  FAMILY(gemma3)                 \
  FAMILY(llama)                  \
  FAMILY(mistral)                \
  FAMILY(qwen2)                  \
  FAMILY(qwen2_5_vl)             \
  FAMILY(qwen3)
// clang-format on

#define ATTNMUX_DECLARE(name) Family name##_family();
ATTNMUX_FAMILIES(ATTNMUX_DECLARE)

const std::vector<Family>& families() {
#define ATTNMUX_CALL(name) name##_family(),
  static const std::vector<Family> all = {ATTNMUX_FAMILIES(ATTNMUX_CALL)};
  return all;
}

namespace {

const Family* find(std::string Family::*key, const std::string& value) {
  const auto found =
      std::find_if(families().begin(), families().end(), [&](const Family& family) { return family.*key == value; });
  return found == families().end() ? nullptr : &*found;
}

std::string built() {
  std::string text = "built are";
  for (const Family& family : families()) {
    text += std::string(&family == &families().front() ? " " : ", ") + family.architecture + " (model_type \"" +
            family.model_type + "\")";
  }
  return text;
}

const Family& family_of(const JsonNode& root) {
  if (!root.has("architectures")) {
    if (!root.has("model_type")) root.at("architectures").fail(built());
    const Family* family = find(&Family::model_type, root.at("model_type").text());
    if (family == nullptr) root.at("model_type").fail(built());
    return *family;
  }
  const std::vector<JsonNode> names = root.at("architectures").elements();
  if (names.size() != 1) root.at("architectures").fail("one name is expected; " + built());
  const Family* family = find(&Family::architecture, names[0].text());
  if (family == nullptr) names[0].fail(built());
  if (root.has("model_type") && root.at("model_type").text() != family->model_type) {
    root.at("model_type").fail("the model_type of " + family->architecture + " is \"" + family->model_type + "\"");
  }
  return *family;
}

const Family& family_of(const ModelConfig& config) {
  const Family* family = find(&Family::architecture, config.architecture);
  if (family == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, "architecture \"" + config.architecture + "\"; " + built());
  }
  return *family;
}

// Tensors that checkpoints may hold beside the parameters.
std::vector<IgnoredTensor> ignored_tensors(const ModelConfig& config) {
  std::vector<IgnoredTensor> ignored = {{.suffix = ".rotary_emb.inv_freq", .same_as = ""}};
  if (config.tie_word_embeddings) {
    ignored.push_back({.suffix = "lm_head.weight", .same_as = embedding_name(config)});
  }
  return ignored;
}

}  // namespace

ModelConfig read_model_config(const std::string& dir) {
  const std::string path = dir + "/config.json";
  return parse_model_config(read_whole_file(path), path);
}

ModelConfig parse_model_config(const std::string& text, const std::string& file_name) {
  const JsonNode root = JsonNode::parse(text, file_name, ErrorCode::kConfig);
  if (!root.is_object()) root.fail("an object is expected");
  const Family& family = family_of(root);
  ModelConfig config = family.read_config(root);
  config.architecture = family.architecture;
  return config;
}

std::vector<ParameterSpec> model_parameters(const ModelConfig& config) { return family_of(config).parameters(config); }

std::vector<AttentionModule> attention_modules(const ModelConfig& config, const AttentionUse& use) {
  return family_of(config).attention_modules(config, use);
}

std::unique_ptr<CausalLm> load_causal_lm(const std::string& dir, const LoadOptions& options) {
  const ModelConfig config = read_model_config(dir);
  return family_of(config).build(config,
                                 ParameterStore::load(dir, model_parameters(config), ignored_tensors(config), options));
}

}  // namespace attnmux
