#include "attnmux/ledger.h"

#include <gtest/gtest.h>

#include <thread>

namespace attnmux {
namespace {

TEST(ExecutionLedger, CountsByModuleBackendAndMask) {
  ExecutionLedger ledger;
  const Hash128 a{.hi = 1, .lo = 2}, b{.hi = 1, .lo = 3};
  ledger.record_forward("m.1", "magi", a);
  ledger.record_forward("m.1", "magi", a);
  ledger.record_backward("m.1", "magi", a);
  ledger.record_recompute("m.1", "magi", a);
  ledger.record_forward("m.1", "magi", b);
  ledger.record_forward("m.0", "sdpa", a);
  ledger.record_forward("m.0", "magi", b);

  const std::vector<LedgerEntry> entries = ledger.entries();
  ASSERT_EQ(entries.size(), 4u);
  EXPECT_EQ(entries[0].module + entries[0].backend, "m.0magi");
  EXPECT_EQ(entries[1].module + entries[1].backend, "m.0sdpa");
  EXPECT_EQ(entries[2].mask, a);
  EXPECT_EQ(entries[2].forward, 2);
  EXPECT_EQ(entries[2].recomputed, 1);
  EXPECT_EQ(entries[2].backward, 1);
  EXPECT_EQ(entries[3].mask, b);
  EXPECT_EQ(entries[3].forward, 1);
  EXPECT_EQ(entries[3].backward, 0);
}

TEST(ExecutionLedger, SortsAModuleBeforeThoseItsNameBegins) {
  ExecutionLedger ledger;
  for (const char* module : {"m.1.x", "m.1", "m.10"}) ledger.record_forward(module, "magi", {});
  const std::vector<LedgerEntry> entries = ledger.entries();
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].module, "m.1");
}

TEST(ExecutionLedger, TakesRecordsFromManyThreads) {
  ExecutionLedger ledger;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) ledger.record_backward("m." + std::to_string(i % 3), "magi", {});
    });
  }
  for (std::thread& thread : threads) thread.join();
  int64_t total = 0;
  for (const LedgerEntry& entry : ledger.entries()) total += entry.backward;
  EXPECT_EQ(total, 4000);
}

}  // namespace
}  // namespace attnmux
