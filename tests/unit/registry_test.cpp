#include "attnmux/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/stub_backend.h"

namespace attnmux {
namespace {

using testing::AllOf;
using testing::HasSubstr;

template <class Function>
Error error_of(const Function& function) {
  try {
    function();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kInternal, "no Error was thrown");
}

TEST(PluginRegistry, FindsWhatWasAdded) {
  PluginRegistry registry;
  const auto stub = std::make_shared<StubBackend>("stub");
  registry.add("stub", stub, {.file = "stub.so", .plugin_id = "stubs"});
  registry.add("another", std::make_shared<StubBackend>("another"), {});
  EXPECT_EQ(registry.find("stub"), stub);
  EXPECT_EQ(registry.at("stub"), stub);
  EXPECT_EQ(registry.find("Stub"), nullptr);
  EXPECT_EQ(registry.origin("stub").file, "stub.so");
  EXPECT_EQ(registry.origin("stub").plugin_id, "stubs");
  EXPECT_THAT(registry.backend_ids(), testing::ElementsAre("another", "stub"));
}

TEST(PluginRegistry, AddingTheSameObjectAgainIsNoError) {
  PluginRegistry registry;
  const auto stub = std::make_shared<StubBackend>("stub");
  registry.add("stub", stub, {.file = "first.so", .plugin_id = ""});
  registry.add("stub", stub, {.file = "second.so", .plugin_id = ""});
  EXPECT_EQ(registry.origin("stub").file, "first.so");
}

TEST(PluginRegistry, ADuplicateNamesBothFilesAndChangesNothing) {
  PluginRegistry registry;
  const auto first = std::make_shared<StubBackend>("stub");
  registry.add("stub", first, {.file = "first.so", .plugin_id = "one"});
  const Error error = error_of(
      [&] { registry.add("stub", std::make_shared<StubBackend>("stub"), {.file = "second.so", .plugin_id = "two"}); });
  EXPECT_EQ(error.code(), ErrorCode::kDuplicateId) << error.what();
  EXPECT_THAT(error.what(), AllOf(HasSubstr("first.so"), HasSubstr("second.so"), HasSubstr("'stub'")));
  EXPECT_EQ(registry.at("stub"), first);
}

TEST(PluginRegistry, NothingWithoutIdOrObject) {
  PluginRegistry registry;
  EXPECT_EQ(error_of([&] { registry.add("", std::make_shared<StubBackend>("x"), {}); }).code(),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(error_of([&] { registry.add("x", nullptr, {}); }).code(), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(registry.backend_ids().empty());
}

TEST(PluginRegistry, AnUnknownIdIsAnsweredWithTheNearest) {
  PluginRegistry registry;
  registry.add("magi", std::make_shared<StubBackend>("magi"), {});
  registry.add("sdpa", std::make_shared<StubBackend>("sdpa"), {});
  for (const Error& error : {error_of([&] { registry.at("magy"); }), error_of([&] { registry.origin("magy"); })}) {
    EXPECT_EQ(error.code(), ErrorCode::kUnknownBackend) << error.what();
    EXPECT_THAT(error.what(), AllOf(HasSubstr("magy"), HasSubstr("\"magi\""), HasSubstr("sdpa")));
  }
}

TEST(PluginRegistry, AvailabilityIsTheBackendsAnswer) {
  PluginRegistry registry;
  registry.add("stub", std::make_shared<StubBackend>("stub"), {});
  const Support declined = registry.available("stub", {});
  ASSERT_EQ(declined.reasons.size(), 1u);
  EXPECT_EQ(declined.reasons[0].code, ReasonCode::kMaskType);

  const Support unknown = registry.available("stob", {});
  ASSERT_EQ(unknown.reasons.size(), 1u);
  EXPECT_EQ(unknown.reasons[0].code, ReasonCode::kBackend);
  EXPECT_THAT(unknown.reasons[0].to_string(), AllOf(HasSubstr("backend: got stob"), HasSubstr("\"stub\"")));
}

}  // namespace
}  // namespace attnmux
