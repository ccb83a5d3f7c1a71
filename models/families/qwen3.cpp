// Follows transformers 5.23.0, models/qwen3/modeling_qwen3.py, class by class: Attention, DecoderLayer, Model,
// ForCausalLM. Unlike Qwen2 it has no biases by default, norms each head of q and k, and takes head_dim apart.
#include "models/families/family.h"
#include "models/io/config_reader.h"
#include "models/nn/attention.h"
#include "models/nn/decoder.h"

namespace attnmux {
namespace {

ModelConfig read_config(const JsonNode& root) {
  ModelConfig config = read_decoder(root, {.max_position_embeddings = 32768, .head_dim = 128});
  config.qkv_bias = config.o_bias = read_flag(root, "attention_bias", false);
  read_window_of_last_layers(root, config);
  return config;
}

class Qwen3Attention {
 public:
  Qwen3Attention(const ModelConfig& config, ParameterSource& source, const std::string& path)
      : path_(path),
        project_(config, source, path),
        q_norm_(source, path + ".q_norm", config.head_dim, config.rms_norm_eps),
        k_norm_(source, path + ".k_norm", config.head_dim, config.rms_norm_eps) {}

  at::Tensor forward(const at::Tensor& hidden, const LayerContext& context) const {
    const at::Tensor q = apply_rope(q_norm_.forward(project_.q(hidden), context), context.rope);
    const at::Tensor k = apply_rope(k_norm_.forward(project_.k(hidden), context), context.rope);
    const AttendResult result = context.step.attend(path_, q, k, project_.v(hidden), {});  // scale: 1 / sqrt(head_dim)
    return context.observed(path_, project_.o(result.out));
  }

 private:
  std::string path_;
  HeadProjections project_;
  RMSNorm q_norm_, k_norm_;  // over each head
};

using Qwen3DecoderLayer = PreNormDecoderLayer<Qwen3Attention>;
using Qwen3Model = DecoderModel<Qwen3DecoderLayer>;

}  // namespace

Family qwen3_family() { return decoder_family<Qwen3Model>("Qwen3ForCausalLM", "qwen3", read_config); }

}  // namespace attnmux
