// What config.json may say: every key that is read, every one that is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/families/families.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

using nlohmann::json;

// SmolLM2-135M's, and what a test changes in it (RFC 7386: null removes a key, which `set` below can avoid).
json smollm2() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "hidden_act": "silu", "hidden_size": 576,
    "intermediate_size": 1536, "max_position_embeddings": 8192, "mlp_bias": false, "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000, "tie_word_embeddings": true,
    "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 49152})");
}

ModelConfig parse(const json& value) { return parse_model_config(value.dump(), "config.json"); }

ModelConfig parse_with(const std::string& patch) {
  json value = smollm2();
  value.merge_patch(json::parse(patch));
  return parse(value);
}

TEST(HfConfig, ReadsSmolLM2) {
  const TempDir dir;
  dir.write("config.json", smollm2().dump());
  const ModelConfig config = read_model_config(dir.path());
  EXPECT_EQ(config.vocab_size, 49152);
  EXPECT_EQ(config.hidden_size, 576);
  EXPECT_EQ(config.intermediate_size, 1536);
  EXPECT_EQ(config.num_hidden_layers, 30);
  EXPECT_EQ(config.num_attention_heads, 9);
  EXPECT_EQ(config.num_key_value_heads, 3);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.max_position_embeddings, 8192);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope.type, RopeType::kDefault);
  EXPECT_EQ(config.rope.theta, 100000);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_ids, std::vector<int64_t>{2});
  EXPECT_EQ(config.dtype, "bfloat16");
  EXPECT_EQ(config.attn_implementation, "");
}

TEST(HfConfig, DefaultsAreThoseOfTransformers) {
  const ModelConfig config = parse(json::parse(R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 10,
      "hidden_size": 24, "intermediate_size": 7, "num_hidden_layers": 1, "num_attention_heads": 3})"));
  EXPECT_EQ(config.num_key_value_heads, 3);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.max_position_embeddings, 2048);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.rope.theta, 10000);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.bos_token_id.has_value());
  EXPECT_TRUE(config.eos_token_ids.empty());
}

TEST(HfConfig, HeadDimMayBeGivenApart) {
  const ModelConfig config = parse_with(R"({"head_dim": 128, "num_attention_heads": 7, "num_key_value_heads": 7})");
  EXPECT_EQ(config.head_dim, 128);
}

TEST(HfConfig, EosMayBeAList) {
  EXPECT_EQ(parse_with(R"({"eos_token_id": [2, 5]})").eos_token_ids, (std::vector<int64_t>{2, 5}));
}

TEST(HfConfig, DTypeInBothSpellings) {
  EXPECT_EQ(parse_with(R"({"torch_dtype": null, "dtype": "float32"})").dtype, "float32");
}

struct RopeCase {
  std::string name;
  std::string patch;
  RopeConfig expected;
};
void PrintTo(const RopeCase& rope, std::ostream* stream) { *stream << rope.name; }

class HfConfigRope : public ::testing::TestWithParam<RopeCase> {};

TEST_P(HfConfigRope, IsRead) {
  const RopeConfig rope = parse_with(GetParam().patch).rope;
  const RopeConfig& expected = GetParam().expected;
  EXPECT_EQ(rope.type, expected.type);
  EXPECT_EQ(rope.theta, expected.theta);
  EXPECT_EQ(rope.factor, expected.factor);
  EXPECT_EQ(rope.low_freq_factor, expected.low_freq_factor);
  EXPECT_EQ(rope.high_freq_factor, expected.high_freq_factor);
  EXPECT_EQ(rope.original_max_position_embeddings, expected.original_max_position_embeddings);
}

const RopeConfig kLlama32 = {.type = RopeType::kLlama3,
                             .theta = 500000,
                             .factor = 32,
                             .low_freq_factor = 1,
                             .high_freq_factor = 4,
                             .original_max_position_embeddings = 8192};
INSTANTIATE_TEST_SUITE_P(
    Forms, HfConfigRope,
    ::testing::Values(
        RopeCase{"Transformers4", R"({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 32.0,
                 "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})",
                 kLlama32},
        RopeCase{"Transformers5", R"({"rope_theta": null, "rope_parameters": {"rope_type": "llama3", "factor": 32.0,
                 "rope_theta": 5e5, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                 "original_max_position_embeddings": 8192}})",
                 kLlama32},
        RopeCase{"LinearByOldKey",
                 R"({"rope_scaling": {"type": "linear", "factor": 2}})",
                 {.type = RopeType::kLinear, .theta = 100000, .factor = 2}},
        RopeCase{"DefaultOf5",
                 R"({"rope_theta": null, "rope_parameters": {"rope_type": "default", "rope_theta": 7e4}})",
                 {.theta = 70000}},
        RopeCase{"ThetaAloneOf5", R"({"rope_theta": null, "rope_parameters": {"rope_theta": 7e4}})", {.theta = 70000}},
        RopeCase{"NoTheta", R"({"rope_theta": null})", {.theta = 10000}}),
    [](const auto& info) { return info.param.name; });

TEST(HfConfig, AttnImplementationInEachSpelling) {
  for (const char* patch : {R"({"attn_implementation": "magi"})", R"({"_attn_implementation": "magi"})",
                            R"({"backend": {"attn": "magi", "linear": "te"}})"}) {
    EXPECT_EQ(parse_with(patch).attn_implementation, "magi") << patch;
  }
  EXPECT_EQ(parse_with(R"({"_attn_implementation": "magi"})").attn_implementation_key, "_attn_implementation");
  EXPECT_EQ(parse_with(R"({"backend": {"attn": "magi"}})").attn_implementation_key, "backend.attn");
}

struct BadConfig {
  std::string name;
  std::string patch;
  std::vector<std::string> message;
};
void PrintTo(const BadConfig& bad, std::ostream* stream) { *stream << bad.name; }

class HfConfigBad : public ::testing::TestWithParam<BadConfig> {};

TEST_P(HfConfigBad, IsRefusedNamingFileAndKey) {
  std::vector<std::string> message = GetParam().message;
  message.push_back("config.json: ");
  expect_error(ErrorCode::kConfig, message, [] { parse_with(GetParam().patch); });
}

constexpr char kLlama3Rope[] = R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
    "high_freq_factor": 4, "original_max_position_embeddings": 8192}})";

std::string llama3_rope_with(const std::string& patch) {
  json value = json::parse(kLlama3Rope);
  value["rope_scaling"].merge_patch(json::parse(patch));
  return value.dump();
}

INSTANTIATE_TEST_SUITE_P(
    Keys, HfConfigBad,
    ::testing::Values(
        BadConfig{"NoVocabSize", R"({"vocab_size": null})", {"vocab_size is missing"}},
        BadConfig{"NoHiddenSize", R"({"hidden_size": null})", {"hidden_size is missing", "add it"}},
        BadConfig{"NoLayers", R"({"num_hidden_layers": null})", {"num_hidden_layers is missing"}},
        BadConfig{"NoHeads", R"({"num_attention_heads": null})", {"num_attention_heads is missing"}},
        BadConfig{"NoArchitecture", R"({"architectures": null, "model_type": null})", {"architectures is missing"}},
        BadConfig{"OtherArchitecture",
                  R"({"architectures": ["PhiForCausalLM"]})",
                  {"architectures[0] is \"PhiForCausalLM\"", "LlamaForCausalLM"}},
        BadConfig{"OtherModelType",
                  R"({"model_type": "mistral"})",
                  {"model_type is \"mistral\"", "LlamaForCausalLM", "\"llama\""}},
        BadConfig{"TextForNumber", R"({"hidden_size": "576"})", {"hidden_size is \"576\"", "integer"}},
        BadConfig{"FractionForInteger", R"({"num_hidden_layers": 1.5})", {"num_hidden_layers is 1.5", "integer"}},
        BadConfig{"NegativeSize", R"({"vocab_size": -3})", {"vocab_size is -3", "positive"}},
        BadConfig{"NumberForFlag", R"({"tie_word_embeddings": 1})", {"tie_word_embeddings is 1", "true or false"}},
        BadConfig{"KvHeadsDoNotDivide", R"({"num_key_value_heads": 4})", {"num_key_value_heads is 4", "divide", "9"}},
        BadConfig{"OddHeadDim", R"({"head_dim": 63})", {"head_dim is 63", "even"}},
        BadConfig{"HiddenSizeNoMultiple", R"({"hidden_size": 577})", {"hidden_size is 577", "9"}},
        BadConfig{"Gelu", R"({"hidden_act": "gelu"})", {"hidden_act is \"gelu\"", "silu"}},
        BadConfig{"SlidingWindow", R"({"sliding_window": 4096})", {"sliding_window is 4096", "would be ignored"}},
        BadConfig{"MlpBias", R"({"mlp_bias": true})", {"mlp_bias is true"}},
        BadConfig{"TensorParallelPretraining", R"({"pretraining_tp": 2})", {"pretraining_tp is 2"}},
        BadConfig{"Quantized", R"({"quantization_config": {"bits": 4}})", {"quantization_config is an object"}},
        BadConfig{"AttentionDropout", R"({"attention_dropout": 0.1})", {"attention_dropout is 0.1"}},
        BadConfig{"LayerTypes",
                  R"({"layer_types": ["full_attention", "sliding_attention"]})",
                  {"layer_types[1] is \"sliding_attention\""}},
        BadConfig{"Yarn",
                  R"({"rope_scaling": {"rope_type": "yarn", "factor": 4}})",
                  {"rope_scaling.rope_type is \"yarn\"", "default, linear and llama3"}},
        BadConfig{"RopeTypesDisagree",
                  R"({"rope_scaling": {"rope_type": "linear", "type": "llama3", "factor": 4}})",
                  {"rope_scaling.type", "linear"}},
        BadConfig{"LinearWithoutFactor", R"({"rope_scaling": {"type": "linear"}})", {"rope_scaling.factor is missing"}},
        BadConfig{"Llama3WithoutOriginal",
                  llama3_rope_with(R"({"original_max_position_embeddings": null})"),
                  {"rope_scaling.original_max_position_embeddings is missing"}},
        BadConfig{"Llama3FactorsInverted",
                  llama3_rope_with(R"({"low_freq_factor": 4})"),
                  {"rope_scaling.high_freq_factor is 4", "exceed"}},
        BadConfig{"UnknownRopeKey", llama3_rope_with(R"({"beta_fast": 32})"), {"rope_scaling.beta_fast is 32"}},
        BadConfig{"PartialRotary", R"({"partial_rotary_factor": 0.5})", {"partial_rotary_factor is 0.5"}},
        BadConfig{"ThetasDisagree",
                  R"({"rope_parameters": {"rope_theta": 5}})",
                  {"rope_parameters.rope_theta is 5", "100000"}},
        BadConfig{"RopeTwice",
                  R"({"rope_parameters": {"rope_theta": 1e5}, "rope_scaling": {"type": "linear"}})",
                  {"rope_scaling", "rope_parameters"}},
        BadConfig{"ZeroTheta", R"({"rope_theta": 0})", {"rope_theta is 0", "positive"}},
        BadConfig{"EosOutOfRange", R"({"eos_token_id": [2, 49152]})", {"eos_token_id[1] is 49152", "49151"}},
        BadConfig{"AttnImplementationsDisagree",
                  R"({"_attn_implementation": "sdpa", "backend": {"attn": "magi"}})",
                  {"backend.attn is \"magi\"", "_attn_implementation", "\"sdpa\""}},
        BadConfig{"BackendAText", R"({"backend": "magi"})", {"backend is \"magi\"", "{\"attn\": \"magi\"}"}},
        BadConfig{"TooManyLayerTypes",
                  R"({"num_hidden_layers": 1, "layer_types": ["full_attention", "full_attention"]})",
                  {"layer_types is", "2 names", "num_hidden_layers is 1"}},
        BadConfig{"AttnImplementationAnObject",
                  R"({"_attn_implementation": {"text_config": "magi"}})",
                  {"_attn_implementation is an object", "text"}}),
    [](const auto& info) { return info.param.name; });

// A config.json of each family with nothing but what it must hold.
json minimal(const std::string& architecture, const std::string& patch) {
  json value = json::parse(R"({"vocab_size": 10, "hidden_size": 24, "intermediate_size": 7, "num_hidden_layers": 8,
                              "num_attention_heads": 3})");
  value["architectures"] = {architecture};
  value.merge_patch(json::parse(patch));
  return value;
}

std::string layers(const ModelConfig& config) {
  std::string text;
  for (const LayerType type : config.layer_types) text += type == LayerType::kFull ? 'f' : 's';
  return text;
}

TEST(FamilyConfig, Qwen2) {
  const ModelConfig config = parse(minimal("Qwen2ForCausalLM", R"({"sliding_window": 5})"));
  EXPECT_EQ(config.architecture, "Qwen2ForCausalLM");
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.o_bias);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(layers(config), "ffffffff");
}

TEST(FamilyConfig, QwenWindowsBeginBehindMaxWindowLayers) {
  const char* const use = R"({"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 6})";
  const ModelConfig config = parse(minimal("Qwen2ForCausalLM", use));
  EXPECT_EQ(layers(config), "ffffffss");
  EXPECT_EQ(config.sliding_window, 5);
  EXPECT_EQ(
      parse(minimal("Qwen3ForCausalLM", R"({"use_sliding_window": true, "max_window_layers": 7})")).sliding_window,
      4096);
}

TEST(FamilyConfig, LayerTypesSayItLayerByLayer) {
  const char* const patch = R"({"use_sliding_window": true, "sliding_window": 5, "num_hidden_layers": 2,
                               "layer_types": ["sliding_attention", "full_attention"]})";
  EXPECT_EQ(layers(parse(minimal("Qwen3ForCausalLM", patch))), "sf");
}

TEST(FamilyConfig, Qwen3HasHeadsOf128UnlessTold) {
  EXPECT_EQ(parse(minimal("Qwen3ForCausalLM", "{}")).head_dim, 128);
  EXPECT_FALSE(parse(minimal("Qwen3ForCausalLM", "{}")).qkv_bias);
  EXPECT_TRUE(parse(minimal("Qwen3ForCausalLM", R"({"attention_bias": true})")).o_bias);
}

TEST(FamilyConfig, MistralSlidesInEveryLayerUnlessToldNot) {
  EXPECT_EQ(layers(parse(minimal("MistralForCausalLM", "{}"))), "ssssssss");
  EXPECT_EQ(parse(minimal("MistralForCausalLM", "{}")).sliding_window, 4096);
  json off = minimal("MistralForCausalLM", "{}");
  off["sliding_window"] = nullptr;
  EXPECT_EQ(layers(parse(off)), "ffffffff");
}

TEST(FamilyConfig, Gemma3HasAFullLayerInSixAndTwoRopes) {
  const ModelConfig config =
      parse(minimal("Gemma3ForCausalLM", R"({"rope_scaling": {"rope_type": "linear", "factor": 8}})"));
  EXPECT_EQ(layers(config), "sssssfss");
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_EQ(config.query_pre_attn_scalar, 256);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_EQ(config.rope.factor, 8);
  EXPECT_EQ(config.sliding_rope.theta, 1e4);
  EXPECT_EQ(config.sliding_rope.type, RopeType::kDefault);
}

// As the hub has it: the language model's keys beside vision_config.
json qwen2_5_vl() {
  json value = minimal("Qwen2_5_VLForConditionalGeneration", "{}");
  value.merge_patch(json::parse(R"({"hidden_size": 384, "rope_theta": 1e6, "max_window_layers": 70, "image_token_id": 8,
      "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
      "vision_config": {"depth": 4, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 40, "num_heads": 2,
                        "in_chans": 3, "out_hidden_size": 384, "patch_size": 14, "spatial_merge_size": 2,
                        "window_size": 112, "fullatt_block_indexes": [1, 3]}})"));
  return value;
}

TEST(FamilyConfig, Qwen2_5_VLInBothForms) {
  const json flat = qwen2_5_vl();
  json nested = {{"architectures", flat["architectures"]},
                 {"vision_config", flat["vision_config"]},
                 {"image_token_id", 8},
                 {"text_config", flat}};
  nested["text_config"].erase("vision_config");
  nested["text_config"].erase("rope_scaling");
  nested["text_config"].erase("rope_theta");
  nested["text_config"]["rope_parameters"] = {
      {"rope_type", "default"}, {"rope_theta", 1e6}, {"mrope_section", {16, 24, 24}}};
  for (const json& form : {flat, nested}) {
    const ModelConfig config = parse(form);
    EXPECT_TRUE(config.qkv_bias);
    EXPECT_EQ(config.rope.theta, 1e6);
    EXPECT_EQ(config.mrope_section, (std::vector<int64_t>{16, 24, 24}));
    EXPECT_EQ(config.image_token_id, 8);
    ASSERT_TRUE(config.vision.has_value());
    EXPECT_EQ(config.vision->merged_window, 4);
    EXPECT_EQ(config.vision->full_layers, (std::vector<bool>{false, true, false, true}));
  }
}

TEST(FamilyConfig, Qwen2_5_VLThatDoesNotFitIsRefused) {
  const auto refused = [](const std::string& patch, const std::vector<std::string>& message) {
    json value = qwen2_5_vl();
    value.merge_patch(json::parse(patch));
    expect_error(ErrorCode::kConfig, message, [&] { parse(value); });
  };
  refused(R"({"vision_config": null})", {"vision_config"});
  refused(R"({"vision_config": {"depth": null}})", {"vision_config.depth"});
  refused(R"({"vision_config": {"out_hidden_size": 32}})", {"vision_config.out_hidden_size is 32", "384"});
  refused(R"({"vision_config": {"fullatt_block_indexes": [4]}})", {"fullatt_block_indexes[0] is 4"});
  refused(R"({"vision_config": {"window_size": 14}})", {"vision_config.window_size is 14"});
  refused(R"({"vision_config": {"hidden_size": 36}})", {"vision_config.hidden_size is 36"});
  refused(R"({"vision_config": {"hidden_act": "gelu"}})", {"vision_config.hidden_act is \"gelu\""});
  refused(R"({"rope_scaling": {"mrope_section": [16, 24, 25]}})", {"rope_scaling", "head_dim / 2", "64"});
  refused(R"({"rope_scaling": {"type": "yarn"}})", {"rope_scaling.type is \"yarn\""});
}

struct BadFamilyConfig {
  std::string name;
  std::string architecture;
  std::string patch;
  std::vector<std::string> message;
};
void PrintTo(const BadFamilyConfig& bad, std::ostream* stream) { *stream << bad.name; }

class FamilyConfigBad : public ::testing::TestWithParam<BadFamilyConfig> {};

TEST_P(FamilyConfigBad, IsRefusedNamingKeyAndValue) {
  const BadFamilyConfig& bad = GetParam();
  expect_error(ErrorCode::kConfig, bad.message, [&] { parse(minimal(bad.architecture, bad.patch)); });
}

INSTANTIATE_TEST_SUITE_P(
    Keys, FamilyConfigBad,
    ::testing::Values(
        BadFamilyConfig{"Unknown",
                        "PhiForCausalLM",
                        "{}",
                        {"PhiForCausalLM", "Gemma3ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM",
                         "Qwen2ForCausalLM", "Qwen3ForCausalLM"}},
        BadFamilyConfig{"ModelTypeOfAnother",
                        "Qwen2ForCausalLM",
                        R"({"model_type": "qwen3"})",
                        {"model_type is \"qwen3\"", "\"qwen2\""}},
        BadFamilyConfig{"SlidingWithoutUse",
                        "Qwen2ForCausalLM",
                        R"({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]})",
                        {"layer_types[0] is \"sliding_attention\"", "use_sliding_window"}},
        BadFamilyConfig{"TooFewLayerTypes",
                        "Qwen3ForCausalLM",
                        R"({"layer_types": ["full_attention"]})",
                        {"layer_types is", "num_hidden_layers is 8"}},
        BadFamilyConfig{"UnknownLayerType",
                        "Gemma3ForCausalLM",
                        R"({"num_hidden_layers": 1, "layer_types": ["chunked_attention"]})",
                        {"layer_types[0] is \"chunked_attention\"", "sliding_attention"}},
        BadFamilyConfig{"ZeroWindow", "MistralForCausalLM", R"({"sliding_window": 0})", {"sliding_window is 0"}},
        BadFamilyConfig{"LayerTypesOfMistral",
                        "MistralForCausalLM",
                        R"({"layer_types": ["full_attention"]})",
                        {"layer_types is", "alike"}},
        BadFamilyConfig{
            "Gelu", "Gemma3ForCausalLM", R"({"hidden_activation": "gelu"})", {"hidden_activation is \"gelu\""}},
        BadFamilyConfig{
            "Softcap", "Gemma3ForCausalLM", R"({"final_logit_softcapping": 30.0})", {"final_logit_softcapping is 30"}},
        BadFamilyConfig{"Bidirectional",
                        "Gemma3ForCausalLM",
                        R"({"use_bidirectional_attention": true})",
                        {"use_bidirectional_attention is true"}},
        BadFamilyConfig{"FlatRopeParameters",
                        "Gemma3ForCausalLM",
                        R"({"rope_parameters": {"rope_theta": 5}})",
                        {"rope_parameters.rope_theta is 5", "sliding_attention"}},
        BadFamilyConfig{"TooManyLayers",
                        "Qwen2ForCausalLM",
                        R"({"num_hidden_layers": 1000000000})",
                        {"num_hidden_layers is 1000000000"}}),
    [](const auto& info) { return info.param.name; });

TEST(HfConfig, LlamaMayNameEachOfItsLayersFull) {
  EXPECT_EQ(parse_with(R"({"num_hidden_layers": 1, "layer_types": ["full_attention"]})").num_hidden_layers, 1);
}

TEST(HfConfig, AnUnusedSlidingWindowIsNoError) {
  EXPECT_EQ(parse_with(R"({"sliding_window": 4096, "use_sliding_window": false})").hidden_size, 576);
}

TEST(HfConfig, BadFilesAreNamed) {
  const TempDir dir;
  expect_error(ErrorCode::kBadFile, {dir.path() + "/config.json", "No such file"},
               [&] { read_model_config(dir.path()); });
  expect_error(ErrorCode::kBadFile, {"c.json: is not JSON: parse error at line 2, column 2", "correct it there"},
               [] { parse_model_config("{\"a\": 1,\n }", "c.json"); });
  expect_error(ErrorCode::kBadFile, {"c.json", "\"a\" twice"},
               [] { parse_model_config(R"({"a": 1, "a": 2})", "c.json"); });
  expect_error(ErrorCode::kConfig, {"c.json", "object"}, [] { parse_model_config("[]", "c.json"); });
}

}  // namespace
}  // namespace attnmux
