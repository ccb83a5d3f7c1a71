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

TEST(PluginRegistry, GroupsHaveIdsOfTheirOwn) {
  PluginRegistry registry;
  const auto mpi = std::make_shared<StubGroup>("mpi");
  registry.add("mpi", std::make_shared<StubBackend>("mpi"), {});
  registry.add_cp_group("mpi", mpi, {.file = "mpi.so", .plugin_id = "mpi"});
  registry.add_cp_group("mpi", mpi, {.file = "again.so", .plugin_id = "mpi"});  // the same object
  EXPECT_EQ(registry.cp_group("mpi"), mpi);
  EXPECT_EQ(registry.find_cp_group("nccl"), nullptr);
  EXPECT_THAT(registry.cp_group_ids(), testing::ElementsAre("mpi"));

  const Error duplicate = error_of(
      [&] { registry.add_cp_group("mpi", std::make_shared<StubGroup>("mpi"), {.file = "other.so", .plugin_id = ""}); });
  EXPECT_EQ(duplicate.code(), ErrorCode::kDuplicateId) << duplicate.what();
  EXPECT_THAT(duplicate.what(), AllOf(HasSubstr("group id 'mpi'"), HasSubstr("mpi.so"), HasSubstr("other.so")));

  const Error unknown = error_of([&] { registry.cp_group("npi"); });
  EXPECT_EQ(unknown.code(), ErrorCode::kConfig) << unknown.what();
  EXPECT_THAT(unknown.what(), AllOf(HasSubstr("\"npi\""), HasSubstr("did you mean \"mpi\""), HasSubstr("threads")));
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
