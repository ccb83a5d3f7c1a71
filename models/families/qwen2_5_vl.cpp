// Follows transformers 5.23.0, models/qwen2_5_vl/modeling_qwen2_5_vl.py, class by class: VisionAttention, VisionBlock,
// PatchMerger, VisionTransformer, TextModel, Model, ForConditionalGeneration.
//
// Images become patches (pixel_values), patches go through the vision tower, whose layers attend within an image or
// within windows of it, blocks of patches become tokens, and these take the place of the image tokens' embeddings. The
// language model is Qwen2 under M-RoPE. Videos are not built.
#include <ATen/ATen.h>

#include <string>
#include <string_view>
#include <utility>

#include "attnmux/error.h"
#include "models/families/family.h"
#include "models/io/config_reader.h"
#include "models/nn/attention.h"
#include "models/nn/decoder.h"
#include "models/nn/image_grid.h"
#include "models/nn/vision_masks.h"

namespace attnmux {
namespace {

int64_t positive(const JsonNode& table, const std::string& key) {
  table.at(key);  // throws where it is missing
  return read_positive(table, key, 0);
}

VisionConfig read_vision(const JsonNode& table) {
  if (table.has("hidden_act") && table.at("hidden_act").text() != "silu") {
    table.at("hidden_act").fail("built is \"silu\"");
  }
  VisionConfig vision;
  vision.depth = positive(table, "depth");
  vision.hidden_size = positive(table, "hidden_size");
  vision.intermediate_size = positive(table, "intermediate_size");
  vision.num_heads = positive(table, "num_heads");
  vision.out_hidden_size = positive(table, "out_hidden_size");
  vision.in_channels = read_positive(table, "in_channels", read_positive(table, "in_chans", 3));
  vision.patch_size = read_positive(table, "patch_size", 14);
  vision.spatial_merge_size = read_positive(table, "spatial_merge_size", 2);
  vision.temporal_patch_size = read_positive(table, "temporal_patch_size", 2);
  const int64_t window = read_positive(table, "window_size", 112);
  vision.merged_window = window / vision.spatial_merge_size / vision.patch_size;
  if (vision.merged_window < 1) table.at("window_size").fail("it must hold a merged patch at least");
  if (vision.hidden_size % vision.num_heads != 0 || vision.hidden_size / vision.num_heads % 4 != 0) {
    table.at("hidden_size").fail("a multiple of 4 * num_heads is expected, for rotary embedding in two axes");
  }
  vision.full_layers.assign(vision.depth, false);
  for (const JsonNode& index : table.at("fullatt_block_indexes").elements()) {
    if (index.integer() < 0 || index.integer() >= vision.depth) index.fail("the tower has depth layers, from 0 on");
    vision.full_layers[index.integer()] = true;
  }
  if (table.has("rope_parameters")) {
    const JsonNode rope = table.at("rope_parameters");
    if (rope.has("rope_type") && rope.at("rope_type").text() != "axial") rope.at("rope_type").fail("built is axial");
    vision.rope_theta = read_positive_number(rope, "rope_theta", vision.rope_theta);
  }
  return vision;
}

// rope_scaling {"type": "mrope", "mrope_section"} beside rope_theta of transformers 4, or rope_parameters of 5.
void read_mrope(const JsonNode& text, ModelConfig& config) {
  config.rope.theta = read_positive_number(text, "rope_theta", 1e6);
  config.mrope_section = {16, 24, 24};
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!text.has(key)) continue;
    const JsonNode table = text.at(key);
    for (const char* type : {"type", "rope_type"}) {
      if (!table.has(type)) continue;
      const std::string& name = table.at(type).text();
      if (name != "mrope" && name != "default") table.at(type).fail("built are mrope and default");
    }
    config.rope.theta = read_positive_number(table, "rope_theta", config.rope.theta);
    if (!table.has("mrope_section")) continue;
    config.mrope_section.clear();
    for (const JsonNode& size : table.at("mrope_section").elements()) {
      if (size.integer() < 0) size.fail("a number of pairs is expected");
      config.mrope_section.push_back(size.integer());
    }
  }
  int64_t sum = 0;
  for (const int64_t size : config.mrope_section) sum += size;
  if (config.mrope_section.size() != 3 || sum != config.head_dim / 2) {
    text.at(text.has("rope_scaling") ? "rope_scaling" : "rope_parameters")
        .fail("mrope_section must have three parts that add up to head_dim / 2, which is " +
              std::to_string(config.head_dim / 2));
  }
}

// transformers 4 writes the language model's keys beside vision_config, 5 in text_config.
ModelConfig read_config(const JsonNode& root) {
  const JsonNode text = root.has("text_config") ? root.at("text_config") : root;
  ModelConfig config = read_decoder(text, {.max_position_embeddings = 32768, .own_rope = true});
  config.tie_word_embeddings = config.tie_word_embeddings || read_flag(root, "tie_word_embeddings", false);
  config.qkv_bias = true;
  read_window_of_last_layers(text, config);
  read_mrope(text, config);
  config.vision = read_vision(root.at("vision_config"));
  if (config.vision->out_hidden_size != config.hidden_size) {
    root.at("vision_config")
        .at("out_hidden_size")
        .fail("the language model's hidden_size is expected, which is " + std::to_string(config.hidden_size));
  }
  config.image_token_id = read_positive(root, "image_token_id", 151655);
  config.video_token_id = read_positive(root, "video_token_id", 151656);
  return config;
}

class VisionAttention {
 public:
  VisionAttention(const VisionConfig& config, ParameterSource& source, const std::string& path)
      : path_(path),
        num_heads_(config.num_heads),
        qkv_(source, path + ".qkv", {.in = config.hidden_size, .out = 3 * config.hidden_size, .bias = true}),
        proj_(source, path + ".proj", {.in = config.hidden_size, .out = config.hidden_size, .bias = true}) {}

  at::Tensor forward(const at::Tensor& hidden, const LayerContext& context) const {
    const at::Tensor qkv = qkv_.forward(hidden).unflatten(1, {3, num_heads_, -1});  // [patches, 3, heads, head_dim]
    const at::Tensor q = rotate(qkv.select(1, 0), context.rope), k = rotate(qkv.select(1, 1), context.rope);
    const at::Tensor v = qkv.select(1, 2);
    // Without patches there is nothing to attend; v stands for it, so that gradients reach qkv.
    const at::Tensor out = hidden.size(0) == 0 ? v : context.step.attend(path_, q, k, v, {}).out;
    return context.observed(path_, proj_.forward(out.flatten(1)));
  }

 private:
  // In the table's precision, fp32 at least.
  static at::Tensor rotate(const at::Tensor& x, const RopeTable& rope) {
    return apply_rope(x.to(rope.cos.scalar_type()), rope).to(x.scalar_type());
  }

  std::string path_;  // "model.visual.blocks.N.attn"
  int64_t num_heads_;
  Linear qkv_, proj_;
};

constexpr double kVisionNormEps = 1e-6;

class VisionBlock {
 public:
  VisionBlock(const VisionConfig& config, ParameterSource& source, const std::string& path)
      : norm1_(source, path + ".norm1", config.hidden_size, kVisionNormEps),
        norm2_(source, path + ".norm2", config.hidden_size, kVisionNormEps),
        attn_(config, source, path + ".attn"),
        mlp_(source, path + ".mlp",
             {.hidden = config.hidden_size, .intermediate = config.intermediate_size, .bias = true}, swiglu) {}

  at::Tensor forward(const at::Tensor& input, const LayerContext& context) const {
    const at::Tensor hidden = input + attn_.forward(norm1_.forward(input, context), context);
    return hidden + mlp_.forward(norm2_.forward(hidden, context), context);
  }

 private:
  RMSNorm norm1_, norm2_;
  VisionAttention attn_;
  GatedMLP mlp_;
};

// A block of merge x merge patches becomes one token of the language model.
class PatchMerger {
 public:
  PatchMerger(const VisionConfig& config, ParameterSource& source, const std::string& path)
      : path_(path),
        width_(config.hidden_size * config.spatial_merge_size * config.spatial_merge_size),
        ln_q_(source, path + ".ln_q", config.hidden_size, kVisionNormEps),
        mlp_0_(source, path + ".mlp.0", {.in = width_, .out = width_, .bias = true}),
        mlp_2_(source, path + ".mlp.2", {.in = width_, .out = config.out_hidden_size, .bias = true}) {}

  at::Tensor forward(const at::Tensor& x, const LayerContext& context) const {
    const at::Tensor blocks = ln_q_.forward(x, context).view({-1, width_});
    return context.observed(path_, mlp_2_.forward(at::gelu(mlp_0_.forward(blocks))));
  }

 private:
  std::string path_;
  int64_t width_;
  RMSNorm ln_q_;
  Linear mlp_0_, mlp_2_;
};

std::string block_path(const std::string& tower, int64_t layer) { return tower + ".blocks." + std::to_string(layer); }

class VisionTransformer {
 public:
  VisionTransformer(const VisionConfig& config, ParameterSource& source, const std::string& path)
      : config_(config),
        path_(path),
        patch_embed_(source.take(path + ".patch_embed.proj.weight",
                                 {config.hidden_size, config.in_channels, config.temporal_patch_size, config.patch_size,
                                  config.patch_size})),
        blocks_(make_blocks(config, source, path)),
        merger_(config, source, path + ".merger") {}

  // [patches, values of a patch] -> [tokens, out_hidden_size]
  at::Tensor forward(const at::Tensor& pixel_values, const std::vector<ImageGrid>& grids, StepContext& step,
                     const ForwardOptions& options) const {
    const int64_t unit = config_.spatial_merge_size * config_.spatial_merge_size;
    const WindowOrder order = order_by_windows(grids, config_.spatial_merge_size, config_.merged_window);
    const RopeTable rope = rotary_table(grids, order.index, unit);
    const LayerContext context{step, rope, options};

    // A convolution whose stride is its kernel: a product with each patch.
    const at::Tensor kernel = patch_embed_.flatten(1);  // [hidden_size, values of a patch]
    const at::Tensor pixels =
        grids.empty() ? at::empty({0, kernel.size(1)}, kernel.options()) : pixel_values.to(kernel.scalar_type());
    at::Tensor hidden = context.observed(path_ + ".patch_embed", at::linear(pixels, kernel));
    hidden = permute(hidden, order.index, unit);
    for (const VisionBlock& block : blocks_) hidden = run_layer(block, hidden, context);
    return merger_.forward(hidden, context).index_select(0, order.index.argsort());
  }

 private:
  static std::vector<VisionBlock> make_blocks(const VisionConfig& config, ParameterSource& source,
                                              const std::string& path) {
    std::vector<VisionBlock> blocks;
    for (int64_t layer = 0; layer < config.depth; ++layer) blocks.emplace_back(config, source, block_path(path, layer));
    return blocks;
  }

  // One half of a head's pairs turns with the row, the other with the column.
  RopeTable rotary_table(const std::vector<ImageGrid>& grids, const at::Tensor& order, int64_t unit) const {
    const int64_t axis_dim = config_.hidden_size / config_.num_heads / 2;
    const at::Tensor inverse = rope_inverse_frequencies({.theta = config_.rope_theta}, axis_dim);  // [axis_dim / 2]
    const at::Tensor positions = patch_positions(grids, config_.spatial_merge_size).to(at::kFloat);
    const at::Tensor angle = permute((positions.unsqueeze(2) * inverse).flatten(1), order, unit);
    const at::ScalarType wide = patch_embed_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return {angle.cos().to(wide), angle.sin().to(wide)};
  }

  VisionConfig config_;
  std::string path_;
  at::Tensor patch_embed_;  // [hidden_size, channels, frames, height, width]
  std::vector<VisionBlock> blocks_;
  PatchMerger merger_;
};

using TextModel = DecoderModel<PreNormDecoderLayer<RotaryAttention>>;

class Qwen2_5_VLModel {
 public:
  Qwen2_5_VLModel(const ModelConfig& config, ParameterSource& source, const std::string& path)
      : config_(config),
        visual_(*config.vision, source, path + ".visual"),
        language_model_(config, source, path + ".language_model") {}

  at::Tensor image_tokens(const at::Tensor& pixel_values, const std::vector<ImageGrid>& grids, StepContext& step,
                          const ForwardOptions& options) const {
    return visual_.forward(pixel_values, grids, step, options);
  }

  at::Tensor embed(const at::Tensor& input_ids, const ForwardOptions& options) const {
    return language_model_.embed(input_ids, options);
  }

  at::Tensor forward(const at::Tensor& embeds, const at::Tensor& position_ids, StepContext& step,
                     const ForwardOptions& options) const {
    const RopeTable rope =
        make_mrope_table(config_.rope, config_.head_dim, config_.mrope_section, position_ids, embeds.scalar_type());
    return language_model_.forward(embeds, rope, step, options);
  }

 private:
  ModelConfig config_;
  VisionTransformer visual_;
  TextModel language_model_;
};

class Qwen2_5_VLForConditionalGeneration final : public DecoderForCausalLM<Qwen2_5_VLModel> {
 public:
  using DecoderForCausalLM::DecoderForCausalLM;

  at::Tensor image_tokens(const at::Tensor& pixel_values, const std::vector<ImageGrid>& grids, StepContext& step,
                          const ForwardOptions& options) const override {
    return model().image_tokens(pixel_values, grids, step, options);
  }

  at::Tensor embed(const at::Tensor& input_ids, const at::Tensor& image_tokens,
                   const ForwardOptions& options) const override {
    const at::Tensor embeds = model().embed(input_ids, options);
    if (!image_tokens.defined()) return embeds;
    const at::Tensor is_image = input_ids.eq(config().image_token_id).unsqueeze(1);
    return embeds.masked_scatter(is_image, image_tokens.to(embeds.scalar_type()));
  }
};

std::vector<AttentionModule> list_attention_modules(const ModelConfig& config, const AttentionUse& use) {
  const VisionConfig& vision = *config.vision;
  AttentionRequest request;
  request.masks = {MaskFamily::kVarlenFull};
  request.dtype = use.dtype;
  request.device = use.device;
  request.training = use.training;
  request.heads_q = request.heads_kv = vision.num_heads;
  request.head_dim = vision.hidden_size / vision.num_heads;
  std::vector<AttentionModule> modules;
  for (int64_t layer = 0; layer < vision.depth; ++layer) {
    modules.push_back(
        {block_path("model.visual", layer) + ".attn", "vision", vision_mask_key(vision.full_layers[layer]), request});
  }
  for (AttentionModule& module : decoder_attention_modules(config, use, "model.language_model")) {
    modules.push_back(std::move(module));
  }
  return modules;
}

// Checkpoints of the hub keep the names of transformers 4: "visual.", "model.layers.". Ours are the module paths.
constexpr std::pair<std::string_view, std::string_view> kStoredPaths[] = {{"model.visual.", "visual."},
                                                                          {"model.language_model.", "model."}};

std::vector<ParameterSpec> list_parameters(const ModelConfig& config) {
  std::vector<ParameterSpec> specs = DecoderForCausalLM<Qwen2_5_VLModel>::list_parameters(config);
  for (ParameterSpec& spec : specs) {
    for (const auto& [path, stored] : kStoredPaths) {
      if (spec.name.starts_with(path)) spec.stored_as = std::string(stored) + spec.name.substr(path.size());
    }
  }
  return specs;
}

}  // namespace

Family qwen2_5_vl_family() {
  Family family = decoder_family<Qwen2_5_VLModel>("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", read_config);
  family.parameters = list_parameters;
  family.attention_modules = list_attention_modules;
  family.build = [](const ModelConfig& config, ParameterStore parameters) -> std::unique_ptr<CausalLm> {
    return std::make_unique<Qwen2_5_VLForConditionalGeneration>(config, std::move(parameters));
  };
  return family;
}

}  // namespace attnmux
