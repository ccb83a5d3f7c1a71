// A causal language model whose attention asks the step: what training, evaluation and scoring use of a model.
//
//   std::unique_ptr<CausalLm> model = load_causal_lm(dir, {.training = true});      // models/families/families.h
//   at::Tensor hidden = model->forward(input, step, {});
//   at::Tensor loss = linear_cross_entropy(hidden, model->lm_head(), labels, valid_tokens);
//
// forward is const and may run from several threads, each with its own StepContext. The model owns its parameters.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "attnmux/step_context.h"
#include "models/io/model_config.h"
#include "models/nn/parameter_store.h"

namespace attnmux {

// Patches of an image: `frames` times height x width.
struct ImageGrid {
  int64_t frames = 1;
  int64_t height = 0;
  int64_t width = 0;
};

struct ModelInput {
  at::Tensor input_ids;     // [tokens] int64, documents packed one behind another
  at::Tensor position_ids;  // [tokens] int64, restarting in each document; or [3, tokens] for a model with M-RoPE
  // Images in the order of their tokens, for a model that reads them.
  at::Tensor pixel_values = {};  // [patches, channels * temporal_patch_size * patch_size^2], as the HF processor's
  std::vector<ImageGrid> image_grids = {};
  at::Tensor inputs_embeds = {};  // [tokens, hidden], instead of input_ids and images: what CausalLm::embed() makes
};

// Sees each module's output as it is made, e.g. to find the first one that is not finite.
using ModuleObserver = std::function<void(const std::string& module_path, const at::Tensor& output)>;

struct ForwardOptions {
  bool activation_checkpointing = false;
  ModuleObserver observe;
};

class CausalLm {
 public:
  virtual ~CausalLm() = default;

  // Final hidden states, [tokens, hidden]. REQUIRES: `step` is armed with a mask of that many tokens.
  virtual at::Tensor forward(const ModelInput& input, StepContext& step, const ForwardOptions& options) const = 0;

  // What forward() begins with: embeddings, [tokens, hidden], with `image_tokens` in the place of the image tokens', in
  // order. Undefined: no images.
  virtual at::Tensor embed(const at::Tensor& input_ids,     // [tokens] int64
                           const at::Tensor& image_tokens,  // [image tokens, hidden]
                           const ForwardOptions& options) const = 0;

  // Images through the vision tower, [image tokens, hidden]. Without images no attention module runs, but gradients
  // reach every weight of the tower, as zeros: ranks and steps without images have the same graph as others. REQUIRES:
  // `step` is armed with these images (arm_images). Throws Error(kInvalidArgument) for a model without a tower.
  virtual at::Tensor image_tokens(const at::Tensor& pixel_values,  // as in ModelInput; undefined without images
                                  const std::vector<ImageGrid>& grids, StepContext& step,
                                  const ForwardOptions& options) const = 0;

  // Output weights, [vocab, hidden]; the input embedding itself where the two are tied.
  virtual const at::Tensor& lm_head() const = 0;

  virtual const ParameterStore& parameters() const = 0;
  virtual const ModelConfig& config() const = 0;
};

}  // namespace attnmux
