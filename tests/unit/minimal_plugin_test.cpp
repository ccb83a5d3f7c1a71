// The example plugin, which others copy, loaded as they would and compared with the reference plugin.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "attnmux/mask_builders.h"
#include "attnmux/plugin_loader.h"
#include "tests/common/compare.h"

namespace attnmux {
namespace {

struct Case {
  const char* name;
  AttnMaskSpec mask;
  int64_t heads_q;
  int64_t heads_kv;
  int64_t head_dim_v;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class MinimalPlugin : public ::testing::TestWithParam<Case> {
 protected:
  static void SetUpTestSuite() {
    registry_ = new PluginRegistry;
    load_plugins({.files = {ATTNMUX_BUILD_DIR "/tests/plugins/minimal.so"}, .relative_to = ""}, *registry_);
  }
  static void TearDownTestSuite() {
    delete registry_;
    shutdown_plugins();
  }

  static PluginRegistry* registry_;
};

PluginRegistry* MinimalPlugin::registry_ = nullptr;

TEST_P(MinimalPlugin, EqualsReference) {
  const Case& c = GetParam();
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  const auto random = [&](int64_t tokens, int64_t heads, int64_t dim) {
    return at::randn({tokens, heads, dim}, generator, at::kFloat);
  };
  constexpr int64_t kHeadDim = 16;
  const at::Tensor q = random(c.mask.total_q(), c.heads_q, kHeadDim);
  const at::Tensor k = random(c.mask.total_k(), c.heads_kv, kHeadDim);
  const at::Tensor v = random(c.mask.total_k(), c.heads_kv, c.head_dim_v);
  const at::Tensor dout = random(c.mask.total_q(), c.heads_q, c.head_dim_v);
  const AttentionShape shape{.heads_q = c.heads_q,
                             .heads_kv = c.heads_kv,
                             .head_dim = kHeadDim,
                             .head_dim_v = c.head_dim_v,
                             .dtype = DType::kFloat32,
                             .device = DeviceKind::kCpu,
                             .device_index = 0};

  ForwardResult forward[2];
  BackwardResult backward[2];
  for (const int i : {0, 1}) {
    const auto backend = registry_->at(i == 0 ? "reference" : "minimal");
    const auto prepared = backend->prepare(c.mask, shape);
    forward[i] = backend->forward(*prepared, {.q = q, .k = k, .v = v, .softmax_scale = 0.25});
    backward[i] = backend->backward(*prepared, {.dout = dout,
                                                .q = q,
                                                .k = k,
                                                .v = v,
                                                .out = forward[i].out,
                                                .lse = forward[i].lse,
                                                .softmax_scale = 0.25,
                                                .deterministic = false});
  }
  const testing::Tolerance tolerance{.absolute = 1e-5, .relative = 1e-5};
  EXPECT_TRUE(testing::close(forward[1].out, forward[0].out, tolerance));
  EXPECT_TRUE(testing::close(forward[1].lse, forward[0].lse, tolerance));
  EXPECT_TRUE(testing::close(backward[1].dq, backward[0].dq, tolerance));
  EXPECT_TRUE(testing::close(backward[1].dk, backward[0].dk, tolerance));
  EXPECT_TRUE(testing::close(backward[1].dv, backward[0].dv, tolerance));
}

INSTANTIATE_TEST_SUITE_P(Cases, MinimalPlugin,
                         ::testing::Values(Case{"causal", causal_mask(33, 33), 2, 2, 16},
                                           Case{"grouped", causal_mask(20, 20), 6, 2, 16},
                                           Case{"cross_lengths", full_mask(5, 17), 2, 1, 16},
                                           Case{"rows_without_keys", causal_mask(12, 5), 2, 2, 16},
                                           Case{"documents", varlen_mask({7, 1, 12}, MaskType::kCausal), 4, 1, 16},
                                           Case{"head_dim_v", causal_mask(9, 9), 2, 2, 24}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux
