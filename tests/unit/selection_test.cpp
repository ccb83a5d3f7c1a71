#include "attnmux/selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "attnmux/error.h"
#include "attnmux/selection_policy.h"
#include "fake_backend.h"

namespace attnmux {
namespace {

using ::testing::AllOf;
using testing::FakeBackend;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<AttentionModule> text_modules(int layers) {
  std::vector<AttentionModule> modules;
  for (int i = 0; i < layers; ++i) {
    modules.push_back({.path = "model.layers." + std::to_string(i) + ".self_attn",
                       .role = "language",
                       .mask_key = "language",
                       .request = {.masks = {MaskFamily::kVarlenCausal}, .training = true}});
  }
  return modules;
}

std::vector<AttentionModule> vlm_modules() {
  std::vector<AttentionModule> modules = text_modules(2);
  modules.push_back({.path = "vision_tower.blocks.0.attn",
                     .role = "vision",
                     .mask_key = "vision",
                     .request = {.masks = {MaskFamily::kVarlenFull}, .head_dim = 72}});
  return modules;
}

std::vector<Reason> refuse_deterministic(const AttentionRequest& request) {
  if (!request.deterministic) return {};
  return {{ReasonCode::kDeterministic, "yes", "no", "choose \"magi\""}};
}

class Selection : public ::testing::Test {
 protected:
  Selection() {
    for (const char* id : {"magi", "sdpa", "flash"}) {
      fakes[id] = std::make_shared<FakeBackend>(id);
      registry.add(id, fakes[id], {});
    }
    fakes["flash"]->refuse = [](const AttentionRequest&) {
      return std::vector<Reason>{{ReasonCode::kMaskType, "varlen_causal", "full", "choose \"magi\""},
                                 {ReasonCode::kTraining, "yes", "no", ""}};
    };
  }

  SelectionTable choose(const std::string& toml, const std::vector<AttentionModule>& modules) {
    return select(policy_from_toml(toml, "f.toml"), modules, registry);
  }

  // Text of the error that `call` throws; its code goes to `code`.
  template <class Call>
  std::string error_of(const Call& call) {
    try {
      call();
    } catch (const Error& error) {
      code = error.code();
      return error.what();
    }
    ADD_FAILURE() << "no error was thrown";
    return "";
  }

  std::map<std::string, std::shared_ptr<FakeBackend>> fakes;
  PluginRegistry registry;
  ErrorCode code = ErrorCode::kInternal;
};

struct Glob {
  const char* name;
  const char* match;
  const char* path;
  bool expected;
};
class GlobTest : public ::testing::TestWithParam<Glob> {};
TEST_P(GlobTest, Matches) { EXPECT_EQ(matches(GetParam().match, GetParam().path), GetParam().expected); }
INSTANTIATE_TEST_SUITE_P(
    Patterns, GlobTest,
    ::testing::Values(Glob{"exact", "a.b.c", "a.b.c", true}, Glob{"exact_is_no_prefix", "a.b", "a.b.c", false},
                      Glob{"star_is_one_segment", "a.*.c", "a.b.c", true},
                      Glob{"star_is_not_two_segments", "a.*.c", "a.b.b.c", false},
                      Glob{"star_is_not_none", "a.*", "a", false}, Glob{"double_star_alone", "**", "a.b.c", true},
                      Glob{"double_star_tail", "a.**", "a.b.c", true}, Glob{"double_star_is_none", "a.**", "a", true},
                      Glob{"double_star_head", "**.self_attn", "model.layers.0.self_attn", true},
                      Glob{"double_star_middle", "a.**.d", "a.b.c.d", true},
                      Glob{"double_star_misses", "a.**.d", "a.b.c", false},
                      Glob{"two_double_stars", "**.layers.**", "model.layers.0.self_attn", true},
                      Glob{"many_stars_stay_fast", "**.**.**.**.**.**.**.**.**.x", "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a",
                           false}),
    [](const auto& info) { return info.param.name; });

TEST_F(Selection, FirstMatchingRuleDecidesAndTheTableNamesIt) {
  const SelectionTable table = choose(R"(
[[attention.rules]]
match = "vision_tower.**"
backend = "sdpa"
[[attention.rules]]
match = "model.layers.*.self_attn"
backend = "magi"
require = { deterministic = true }
)",
                                      vlm_modules());
  ASSERT_EQ(table.choices().size(), 3u);
  EXPECT_EQ(table.at("model.layers.1.self_attn").backend_id, "magi");
  EXPECT_EQ(table.at("model.layers.1.self_attn").rule.origin, "f.toml:5:1");
  EXPECT_EQ(table.at("vision_tower.blocks.0.attn").backend_id, "sdpa");
  EXPECT_EQ(table.at("vision_tower.blocks.0.attn").backend, fakes["sdpa"]);
  const std::string text = error_of([&] { table.at("model.layers.7.self_attn"); });
  EXPECT_EQ(code, ErrorCode::kUnmatchedModule);
  EXPECT_THAT(text, HasSubstr("did you mean \"model.layers.0.self_attn\"?"));
}

TEST_F(Selection, Sel1UnmatchedModulesAreListedByPath) {
  const std::string text = error_of(
      [&] { choose("[[attention.rules]]\nmatch = \"vision_tower.**\"\nbackend = \"sdpa\"\n", vlm_modules()); });
  EXPECT_EQ(code, ErrorCode::kUnmatchedModule);
  EXPECT_THAT(text, HasSubstr("in 2 modules: model.layers.0.self_attn, model.layers.1.self_attn"));
  EXPECT_THAT(text, Not(HasSubstr("vision_tower.blocks")));
}

TEST_F(Selection, Sel2ARuleThatMatchesNothingIsAnError) {
  const std::string text = error_of([&] {
    choose(
        "[[attention.rules]]\nmatch = \"**\"\nbackend = \"magi\"\n"
        "[[attention.rules]]\nmatch = \"model.layers.0.self_atn\"\nbackend = \"sdpa\"\n",
        text_modules(2));
  });
  EXPECT_EQ(code, ErrorCode::kDeadRule);
  EXPECT_THAT(text, AllOf(HasSubstr("\"model.layers.0.self_atn\" (f.toml:4:1) matches no attention module"),
                          HasSubstr("the nearest is \"model.layers.0.self_attn\"")));
}

TEST_F(Selection, Sel2ARuleShadowedByEarlierOnesIsAnError) {
  const std::string text = error_of([&] {
    choose(
        "[[attention.rules]]\nmatch = \"model.layers.0.**\"\nbackend = \"magi\"\n"
        "[[attention.rules]]\nmatch = \"model.layers.1.**\"\nbackend = \"magi\"\n"
        "[[attention.rules]]\nmatch = \"model.**\"\nbackend = \"sdpa\"\n",
        text_modules(2));
  });
  EXPECT_EQ(code, ErrorCode::kDeadRule);
  EXPECT_THAT(text, AllOf(HasSubstr("\"model.**\" (f.toml:7:1) decides nothing"), HasSubstr("f.toml:1:1"),
                          HasSubstr("f.toml:4:1")));
}

TEST_F(Selection, Sel3AnUnknownBackendListsTheKnownAndTheNearest) {
  const std::string text = error_of([&] {
    choose("[[attention.rules]]\nmatch = \"**\"\nbackend = \"mgai\"\nfallback = [\"flahs\"]\n", text_modules(1));
  });
  EXPECT_EQ(code, ErrorCode::kUnknownBackend);
  EXPECT_THAT(text, AllOf(HasSubstr("\"mgai\""), HasSubstr("did you mean \"magi\"?"), HasSubstr("flash, magi, sdpa"),
                          HasSubstr("did you mean \"flash\"?"), HasSubstr("f.toml:1:1")));
}

TEST_F(Selection, Sel4ARefusalNamesAllReasonsOfAllModules) {
  fakes["sdpa"]->refuse = [](const AttentionRequest& request) {
    if (request.head_dim != 72) return std::vector<Reason>{};
    return std::vector<Reason>{{ReasonCode::kHeadDim, "72", "64 or 128", "choose \"magi\""}};
  };
  const std::string text = error_of([&] {
    choose(
        "[[attention.rules]]\nmatch = \"vision_tower.**\"\nbackend = \"sdpa\"\n"
        "[[attention.rules]]\nmatch = \"model.**\"\nbackend = \"flash\"\n",
        vlm_modules());
  });
  EXPECT_EQ(code, ErrorCode::kUnsupported);
  EXPECT_THAT(text, AllOf(HasSubstr("flash refuses: mask.type: got varlen_causal, want full; choose \"magi\""),
                          HasSubstr("flash refuses: training: got yes, want no"),
                          HasSubstr("model.layers.0.self_attn, model.layers.1.self_attn"),
                          HasSubstr("sdpa refuses: head_dim: got 72, want 64 or 128"),
                          HasSubstr("vision_tower.blocks.0.attn"), HasSubstr("2 problems")));
}

TEST_F(Selection, Sel4ProblemsOfEveryKindComeInOneError) {
  const std::string text = error_of([&] {
    choose(
        "[[attention.rules]]\nmatch = \"model.layers.0.**\"\nbackend = \"flash\"\n"
        "[[attention.rules]]\nmatch = \"vision.**\"\nbackend = \"sdpa\"\n"
        "[[attention.rules]]\nmatch = \"vision_tower.**\"\nbackend = \"nothing_like_it\"\n",
        vlm_modules());
  });
  EXPECT_EQ(code, ErrorCode::kUnknownBackend);  // the most basic of them
  EXPECT_THAT(text, AllOf(HasSubstr("4 problems"), HasSubstr("UnknownBackend:"), HasSubstr("DeadRule:"),
                          HasSubstr("UnmatchedModule:"), HasSubstr("Unsupported:")));
}

TEST_F(Selection, Sel5AWrittenFallbackIsTakenAndRecorded) {
  const SelectionTable table = choose(
      "[[attention.rules]]\nmatch = \"**\"\nbackend = \"flash\"\nfallback = [\"sdpa\", \"magi\"]\n", text_modules(1));
  const ModuleChoice& choice = table.choices().front();
  EXPECT_EQ(choice.backend_id, "sdpa");
  EXPECT_TRUE(choice.fell_back);
  ASSERT_EQ(choice.rejected.size(), 1u);
  EXPECT_EQ(choice.rejected[0].backend, "flash");
  EXPECT_EQ(choice.rejected[0].reasons.size(), 2u);
}

TEST_F(Selection, Sel5WithoutAWrittenFallbackNothingIsTaken) {
  const std::string text = error_of(
      [&] { choose("[[attention.rules]]\nmatch = \"**\"\nbackend = \"flash\"\nfallback = []\n", text_modules(1)); });
  EXPECT_EQ(code, ErrorCode::kUnsupported);
  EXPECT_THAT(text, HasSubstr("no `fallback` is written"));
}

TEST_F(Selection, Sel5StrictMakesAFallbackFatal) {
  const std::string text = error_of([&] {
    choose(
        "[attention]\nstrict = true\n[[attention.rules]]\nmatch = \"**\"\nbackend = \"flash\"\n"
        "fallback = [\"sdpa\"]\n",
        text_modules(1));
  });
  EXPECT_EQ(code, ErrorCode::kUnsupported);
  EXPECT_THAT(text, AllOf(HasSubstr("from \"flash\" to \"sdpa\""), HasSubstr("strict"), HasSubstr("mask.type")));
}

TEST_F(Selection, Sel6AutoAsksByPriorityAndReportsEachRejectedCandidate) {
  fakes["flash"]->auto_priority = 3;
  fakes["magi"]->auto_priority = 2;
  fakes["magi"]->refuse = refuse_deterministic;
  fakes["sdpa"]->auto_priority = 1;
  const SelectionTable table = choose(
      "[[attention.rules]]\nmatch = \"**\"\nbackend = \"auto\"\nrequire = { deterministic = true }\n", text_modules(1));
  const ModuleChoice& choice = table.choices().front();
  EXPECT_EQ(choice.backend_id, "sdpa");
  EXPECT_FALSE(choice.fell_back);
  ASSERT_EQ(choice.rejected.size(), 2u);
  EXPECT_EQ(choice.rejected[0].backend, "flash");
  EXPECT_EQ(choice.rejected[1].backend, "magi");
  EXPECT_EQ(choice.rejected[1].reasons[0].code, ReasonCode::kDeterministic);
}

TEST_F(Selection, Sel6AutoNeverTakesABackendOfNegativePriority) {
  for (const char* id : {"magi", "sdpa"}) fakes[id]->auto_priority = -1;
  const std::string text =
      error_of([&] { choose("[[attention.rules]]\nmatch = \"**\"\nbackend = \"auto\"\n", text_modules(1)); });
  EXPECT_EQ(code, ErrorCode::kUnsupported);
  EXPECT_THAT(text, AllOf(HasSubstr("every backend refuses"), HasSubstr("flash refuses"), Not(HasSubstr("sdpa"))));
}

TEST_F(Selection, Sel8TheHashTellsTablesApart) {
  const std::string magi = "[[attention.rules]]\nmatch = \"**\"\nbackend = \"magi\"\n";
  const Hash128 hash = choose(magi, text_modules(2)).hash();
  EXPECT_EQ(hash, choose("\n\n" + magi, text_modules(2)).hash()) << "where a rule is written does not matter";
  EXPECT_NE(hash, choose("[[attention.rules]]\nmatch = \"**\"\nbackend = \"sdpa\"\n", text_modules(2)).hash());
  EXPECT_NE(hash, choose(magi, text_modules(3)).hash());
  EXPECT_NE(hash, choose(magi + "require = { deterministic = true }\n", text_modules(2)).hash());
  std::vector<AttentionModule> other = text_modules(2);
  other[1].request.head_dim = 128;
  EXPECT_NE(hash, choose(magi, other).hash());
}

class Sel2BadToml : public Selection, public ::testing::WithParamInterface<std::pair<const char*, const char*>> {};
TEST_P(Sel2BadToml, NamesLineAndColumn) {
  const auto& [toml, expected] = GetParam();
  const std::string text = error_of([&] { policy_from_toml(toml, "dir/f.toml"); });
  EXPECT_EQ(code, ErrorCode::kConfig);
  EXPECT_THAT(text, HasSubstr(expected));
}
const std::pair<const char*, const char*> kBadToml[] = {
    {"[attention]\nstrcit = true", "dir/f.toml:2:1: [attention]: unknown key \"strcit\"; did you mean \"strict\"?"},
    {"[[attention.rules]]\nmatch = \"**\"\n  bakcend = \"magi\"", "dir/f.toml:3:3:"},
    {"[[attention.rules]]\nmatch = \"**\"\nbackend = \"magi\"\nrequire = { determinstic = true }",
     "dir/f.toml:4:13: [[attention.rules]] require: unknown key \"determinstic\"; did you mean \"deterministic\"?"},
    {"[[attention.rules]]\nmatch = \"**\"", "dir/f.toml:1:1: [[attention.rules]] needs the key \"backend\""},
    {"[[attention.rules]]\nbackend = \"magi\"", "needs the key \"match\""},
    {"[[attention.rules]]\nmatch = 3\nbackend = \"magi\"",
     "dir/f.toml:2:9: [[attention.rules]] match must be a string"},
    {"[[attention.rules]]\nmatch = \"\"\nbackend = \"magi\"", "match is empty"},
    {"[[attention.rules]]\nmatch = \"layer_*\"\nbackend = \"magi\"", "mixes `*` with text"},
    {"[[attention.rules]]\nmatch = \"a..b\"\nbackend = \"magi\"", "empty path segment"},
    {"[attention.rules]\nmatch = \"**\"\nbackend = \"magi\"", "double brackets"},
    {"[attention]\nrules = [1]", "must be a table, got an integer"},
    {"attention = 3", "dir/f.toml:1:13: [attention] must be a table"},
    {"[attention]\nstrict = 1", "strict must be true or false"},
    {"[attention]\nplugins = \"x.so\"", "plugins must be an array of strings"},
    {"[[attention.rules]]\nmatch = \"**\"\nbackend = \"auto\"\nfallback = [\"magi\"]", "remove `fallback`"},
    {"[[attention.rules]]\nmatch = \"**\"\nbackend = \"magi\"\nfallback = [\"auto\"]", "\"auto\" is none of them"},
    {"[[attention.rules]]\nmatch = \"**\"\nbackend = \"magi\"\nfallback = [\"magi\"]", "the rule's own backend"},
    {"[attention\n", "dir/f.toml:1:"},
    {"[atention]\nstrict = true", "dir/f.toml:1:2: top level: unknown key \"atention\"; did you mean \"attention\"?"},
    {"[model]\natn_implementation = \"magi\"", "did you mean \"attn_implementation\"?"},
    {"[model]\nattn_implementation = 1", "attn_implementation must be a string"},
};
INSTANTIATE_TEST_SUITE_P(Texts, Sel2BadToml, ::testing::ValuesIn(kBadToml));

TEST_F(Selection, PluginFilesAreRelativeToTheConfig) {
  const SelectionPolicy policy = policy_from_toml("[attention]\nplugins = [\"./a.so\", \"/abs/b.so\"]", "dir/f.toml");
  EXPECT_THAT(policy.plugins, ::testing::ElementsAre("dir/./a.so", "/abs/b.so"));
}

TEST_F(Selection, AttnImplementationPutsLanguageOnItAndVisionOnSdpa) {
  const SelectionTable table =
      select(policy_from_attn_implementation("magi", "config.json: _attn_implementation"), vlm_modules(), registry);
  EXPECT_EQ(table.at("model.layers.0.self_attn").backend_id, "magi");
  EXPECT_EQ(table.at("vision_tower.blocks.0.attn").backend_id, "sdpa");
  // The vision rule matches nothing in a text model; it was not written, so it is not dead.
  EXPECT_EQ(select(policy_from_attn_implementation("magi", "x"), text_modules(1), registry).choices().size(), 1u);
}

TEST_F(Selection, AttnImplementationOfAnotherSystemIsAnUnknownBackend) {
  const std::string text = error_of([&] {
    select(*policy_from_config_json(R"({"_attn_implementation": "eager"})", "m/config.json"), text_modules(1),
           registry);
  });
  EXPECT_EQ(code, ErrorCode::kUnknownBackend);
  EXPECT_THAT(text, AllOf(HasSubstr("m/config.json: _attn_implementation"), HasSubstr("eager")));
}

TEST_F(Selection, ConfigJsonKeys) {
  for (const char* json :
       {R"({"_attn_implementation": "magi"})", R"({"attn_implementation": "magi"})", R"({"backend": {"attn": "magi"}})",
        R"({"backend": {"attn": "magi"}, "_attn_implementation": "magi"})"}) {
    const auto policy = policy_from_config_json(json, "config.json");
    ASSERT_TRUE(policy) << json;
    EXPECT_EQ(policy->rules.front().backend, "magi") << json;
  }
  EXPECT_FALSE(policy_from_config_json(R"({"model_type": "llama", "_attn_implementation": null})", "config.json"));
  for (const auto& [json, expected] :
       {std::pair{R"({"_attn_implementation": "magi", "backend": {"attn": "sdpa"}})", "keep one"},
        std::pair{R"({"_attn_implementation": {"text_config": "magi"}})", "must be a string"},
        std::pair{R"({"_attn_implementation": )", "not valid JSON: parse error at column"},
        std::pair{R"({"backend": "magi"})", "\"backend\" must be an object like {\"attn\": \"magi\"}, got string"},
        std::pair{"[]", "a JSON object is expected"}}) {
    const std::string text = error_of([&] { policy_from_config_json(json, "m/config.json"); });
    EXPECT_EQ(code, ErrorCode::kConfig);
    EXPECT_THAT(text, AllOf(HasSubstr(expected), HasSubstr("m/config.json")));
  }
}

TEST_F(Selection, Sel10OneSourceDecidesAndIsNamedAsOrigin) {
  const PolicySources sources{.toml =
                                  "[model]\nattn_implementation = \"sdpa\"\n[[attention.rules]]\n"
                                  "match = \"model.layers.0.**\"\nbackend = \"magi\"\n",
                              .toml_file = "f.toml",
                              .config_json = R"({"_attn_implementation": "flash"})",
                              .config_json_file = "config.json"};
  SelectionTable table = select(resolve_policy(sources), text_modules(2), registry);
  EXPECT_EQ(table.choices()[0].rule.origin, "f.toml:3:1") << "a written rule wins";
  EXPECT_EQ(table.choices()[1].rule.origin, "f.toml:2:23: [model] attn_implementation") << "and TOML over config.json";

  PolicySources json_only = sources;
  json_only.toml.clear();
  json_only.config_json = R"({"_attn_implementation": "magi"})";
  table = select(resolve_policy(json_only), text_modules(1), registry);
  EXPECT_EQ(table.choices()[0].rule.origin, "config.json: _attn_implementation");

  ::setenv("ATTNMUX_ATTN_IMPLEMENTATION", "sdpa", 1);
  table = select(resolve_policy(sources), text_modules(2), registry);
  ::unsetenv("ATTNMUX_ATTN_IMPLEMENTATION");
  for (const ModuleChoice& choice : table.choices()) {
    EXPECT_EQ(choice.backend_id, "sdpa");
    EXPECT_EQ(choice.rule.origin, "environment: ATTNMUX_ATTN_IMPLEMENTATION");
  }
}

}  // namespace
}  // namespace attnmux
