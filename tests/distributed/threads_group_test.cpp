#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "attnmux/cp_group.h"
#include "attnmux/error.h"
#include "expect_error.h"
#include "faults.h"
#include "transport_cases.h"

namespace attnmux::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// --- what every transport does ---

struct SizedCase {
  TransportCase transport;
  int32_t size;
};
void PrintTo(const SizedCase& sized, std::ostream* out) { *out << sized.transport.name << " on " << sized.size; }

std::vector<SizedCase> sized_cases() {
  std::vector<SizedCase> all;
  for (const TransportCase& transport : transport_cases()) {
    for (const int32_t size : {1, 2, 3, 4, 8}) all.push_back({transport, size});
  }
  return all;
}

class ThreadsTransport : public ::testing::TestWithParam<SizedCase> {};

TEST_P(ThreadsTransport, Works) { run_threads_group(GetParam().size, {}, GetParam().transport.run); }

INSTANTIATE_TEST_SUITE_P(Cases, ThreadsTransport, ::testing::ValuesIn(sized_cases()), [](const auto& info) {
  return info.param.transport.name + "_" + std::to_string(info.param.size);
});

class SingleRank : public ::testing::TestWithParam<TransportCase> {};

TEST_P(SingleRank, Works) { GetParam().run(*single_rank_group()); }

INSTANTIATE_TEST_SUITE_P(Cases, SingleRank, ::testing::ValuesIn(transport_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(SingleRankGroup, FailsAfterAbort) {
  const std::shared_ptr<CpGroup> group = single_rank_group();
  group->abort("the disk is full");
  expect_error(ErrorCode::kCommError, {"barrier", "rank 0 of 1", "the disk is full"}, [&] { group->barrier(); });
}

// --- a rank fails at a call ---

struct FaultCase {
  NamedCall call;
  Fault fault;
  int32_t size;
};
void PrintTo(const FaultCase& fault, std::ostream* out) { *out << to_string(fault.fault) << " at " << fault.call.name; }

std::vector<FaultCase> fault_cases() {
  std::vector<FaultCase> all;
  for (const NamedCall& call : named_calls()) {
    for (const Fault fault : {Fault::kThrow, Fault::kReturn, Fault::kStall, Fault::kAbort}) {
      for (const int32_t size : {2, 4}) all.push_back({call, fault, size});
    }
  }
  return all;
}

class Faults : public ::testing::TestWithParam<FaultCase> {};

TEST_P(Faults, EveryOtherRankNamesTheRankAndTheCall) {
  const auto& [call, fault, size] = GetParam();
  const int32_t culprit = size / 2;
  // A stall ends at this deadline, everything else at once: an hour would fail the test by its time limit.
  const std::chrono::milliseconds deadline = fault == Fault::kStall ? 200ms : std::chrono::milliseconds(1h);
  std::atomic<int32_t> past_barrier = 0;
  std::atomic<int32_t> failed = 0;
  const auto body = [&](CpGroup& group) {
    group.barrier();
    ++past_barrier;
    if (group.rank() == culprit) {
      while (past_barrier < size) std::this_thread::sleep_for(1ms);
      switch (fault) {
        case Fault::kThrow: throw Error(ErrorCode::kNonFinite, "the loss is NaN");
        case Fault::kReturn: return;
        case Fault::kAbort: group.abort("the loss is NaN"); return;
        case Fault::kStall:
          while (failed < size - 1) std::this_thread::sleep_for(1ms);
          expect_error(ErrorCode::kCommError, {call.in_text, of(culprit, size)}, [&] { call.call(group); });
          return;
      }
    }
    try {
      call.call(group);
      ADD_FAILURE() << of(group.rank(), size) << " did not notice";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCommError);
      EXPECT_THAT(error.what(), HasSubstr(of(culprit, size)));
      EXPECT_THAT(error.what(), HasSubstr(call.in_text + " (call 2"));
      EXPECT_THAT(error.what(), HasSubstr("barrier (call 1)"));
      ++failed;
    }
    expect_error(ErrorCode::kCommError, {"barrier", of(culprit, size)}, [&] { group.barrier(); });
    throw Error(ErrorCode::kCommError, "a later error");
  };
  try {
    run_threads_group(size, {.deadline = deadline}, body);
    ADD_FAILURE() << "the run did not fail";
  } catch (const Error& error) {
    if (fault == Fault::kThrow) {
      EXPECT_EQ(error.code(), ErrorCode::kNonFinite);
      EXPECT_EQ(error.what(), of(culprit, size) + ": the loss is NaN");
    } else {
      EXPECT_EQ(error.code(), ErrorCode::kCommError);
    }
  }
  EXPECT_EQ(failed, size - 1);
}

INSTANTIATE_TEST_SUITE_P(Cases, Faults, ::testing::ValuesIn(fault_cases()), [](const auto& info) {
  return info.param.call.name + "_" + to_string(info.param.fault) + "_" + std::to_string(info.param.size);
});

// Rank 0 gives up on rank 1 first, which waits for the rank that stalls.
TEST(ThreadsGroup, TheStalledRankIsNamedNotTheOneThatWaitsForIt) {
  std::atomic<int32_t> failed = 0;
  std::atomic<bool> posted = false;
  try {
    run_threads_group(3, {.deadline = 300ms}, [&](CpGroup& group) {
      const auto trade_with = [&](int32_t other) {
        std::vector<at::Tensor> send(3), receive(3);
        send[other] = at::ones({1});
        receive[other] = at::empty({1});
        return group.exchange(send, receive);
      };
      if (group.rank() == 0) {
        group.exchange(std::vector<at::Tensor>(3), std::vector<at::Tensor>(3))->wait();  // waits for nobody
        const std::unique_ptr<Work> work = trade_with(1);
        posted = true;
        expect_error(ErrorCode::kCommError, {"rank 2 of 3 did not call exchange (call 1)"}, [&] { work->wait(); });
        ++failed;
      } else if (group.rank() == 1) {
        while (!posted) std::this_thread::sleep_for(1ms);
        expect_error(ErrorCode::kCommError, {"rank 2 of 3"}, [&] { trade_with(2)->wait(); });
        ++failed;
      } else {
        while (failed < 2) std::this_thread::sleep_for(1ms);
      }
    });
    ADD_FAILURE() << "the run did not fail";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 2 of 3 did not call exchange (call 1) within 300 ms"));
  }
}

// --- calls that do not match ---

struct Mismatch {
  const char* name;
  std::function<void(CpGroup& group)> body;  // of ranks 0 and 1
  std::vector<std::string> text;
};
void PrintTo(const Mismatch& mismatch, std::ostream* out) { *out << mismatch.name; }

class Mismatches : public ::testing::TestWithParam<Mismatch> {};

TEST_P(Mismatches, NameBothRanksAndCalls) {
  std::atomic<int32_t> failed = 0;
  try {
    run_threads_group(3, {.deadline = 1h}, [&](CpGroup& group) {
      try {
        GetParam().body(group);
      } catch (const Error&) {
        ++failed;
        throw;
      }
    });
    ADD_FAILURE() << "the run did not fail";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCommError) << error.what();
    for (const std::string& part : GetParam().text) EXPECT_THAT(error.what(), HasSubstr(part));
  }
  EXPECT_EQ(failed, 3);
}

const Mismatch kMismatches[] = {
    {"other_calls",
     [](CpGroup& group) { group.rank() == 1 ? group.barrier() : exchange_with_all(group); },
     {"rank 1 of 3 called barrier (call 1)", "called exchange (call 1)"}},
    {"sizes",
     [](CpGroup& group) { exchange_with_all(group, group.rank() == 1 ? 4 : 3); },
     {"in exchange (call 1)", "rank 1 of 3", "4 Float", "3 Float"}},
    {"dtypes",
     [](CpGroup& group) { exchange_with_all(group, 3, group.rank() == 1 ? at::kHalf : at::kFloat); },
     {"in exchange (call 1)", "rank 1 of 3", "3 Half", "3 Float"}},
    {"nothing_expected",
     [](CpGroup& group) {
       std::vector<at::Tensor> send(3), receive(3);
       if (group.rank() == 1) send[2] = at::ones({5}, at::kBFloat16);
       group.exchange(send, receive)->wait();
       group.barrier();
     },
     {"rank 1 of 3 sends 5 BFloat16 to rank 2 of 3, which expects nothing"}},
    {"reductions",
     [](CpGroup& group) {
       group.all_reduce(at::ones({2}), group.rank() == 2 ? ReduceOp::kMax : ReduceOp::kSum)->wait();
     },
     {"all_reduce(sum, 2 Float)", "rank 2 of 3 called all_reduce(max, 2 Float)"}},
    {"gathered_sizes",
     [](CpGroup& group) {
       group.all_gather(at::ones({group.rank() + 1}), at::ones({3, group.rank() + 1}))->wait();
     },
     {"all_gather(1 Float)", "all_gather("}},
    {"subgroups",
     [](CpGroup& group) {
       group.subgroup(group.rank() == 2 ? std::vector<int32_t>{2} : std::vector<int32_t>{0, 1, 2});
       group.barrier();
     },
     {"asked for the subgroup {0, 1, 2}", "rank 2 of 3 for {2}"}},
};

INSTANTIATE_TEST_SUITE_P(Cases, Mismatches, ::testing::ValuesIn(kMismatches),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ThreadsGroup, ArgumentsAreCheckedBeforeAnythingIsSent) {
  run_threads_group(2, {}, [](CpGroup& group) {
    const auto refuses = [](const std::vector<std::string>& text, const std::function<void()>& call) {
      expect_error(ErrorCode::kInvalidArgument, text, call);
    };
    const at::Tensor strided = at::ones({4, 4}).t();
    refuses({"1 tensors to send", "2 ranks"}, [&] { group.exchange({at::Tensor()}, {at::Tensor(), at::Tensor()}); });
    refuses({"sent to rank 1 [4, 4] Float is not contiguous"}, [&] {
      group.exchange({at::Tensor(), strided}, {at::Tensor(), at::Tensor()});
    });
    refuses({"rank " + std::to_string(group.rank()) + " sends itself"}, [&] {
      std::vector<at::Tensor> send(2);
      send[group.rank()] = at::ones({1});
      group.exchange(send, {at::Tensor(), at::Tensor()});
    });
    refuses({"all_reduce", "undefined"}, [&] { group.all_reduce({}, ReduceOp::kSum); });
    refuses({"not contiguous"}, [&] { group.all_reduce(strided, ReduceOp::kSum); });
    refuses({"dtype Bool", "BFloat16"}, [&] { group.all_reduce(at::ones({2}, at::kBool), ReduceOp::kSum); });
    refuses({"[3] Float of each of 2 ranks do not make [3, 3] Float"}, [&] {
      group.all_gather(at::ones({3}), at::ones({3, 3}));
    });
    for (const std::vector<int32_t>& ranks : {std::vector<int32_t>{}, {1, 0}, {0, 2}, {1 - group.rank()}}) {
      refuses({"subgroup {", "ascending order"}, [&] { group.subgroup(ranks); });
    }
    group.barrier();  // and the group is none the worse
  });
  for (const int32_t size : {0, -1}) {
    expect_error(ErrorCode::kInvalidArgument, {"takes one or more"},
                 [&] { run_threads_group(size, {}, [](CpGroup&) {}); });
  }
  expect_error(ErrorCode::kInvalidArgument, {"deadline of 0 ms"},
               [] { run_threads_group(2, {.deadline = 0ms}, [](CpGroup&) {}); });
}

// --- threads, works, traces ---

// The exchange is over while no rank's own thread waits for it.
TEST(ThreadsGroup, BytesMoveWhileTheRanksCompute) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<CpEvent> events;
  const CpGroupOptions options{.observer = [&](const CpEvent& event) {
    const std::lock_guard lock(mutex);
    events.push_back(event);
    changed.notify_all();
  }};
  run_threads_group(3, options, [&](CpGroup& group) {
    std::vector<at::Tensor> send(3), receive(3);
    const int32_t next = (group.rank() + 1) % 3;
    const int32_t last = (group.rank() + 2) % 3;
    send[next] = message(group.rank(), next, 1000, at::kFloat);
    receive[last] = at::zeros({1000});
    const std::unique_ptr<Work> work = group.exchange(send, receive);
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return events.size() == 3; });
    lock.unlock();
    require_same(receive[last], message(last, group.rank(), 1000, at::kFloat), "before wait()");
    work->wait();
  });
  ASSERT_EQ(events.size(), 3u);
  std::set<int32_t> ranks;
  for (const CpEvent& event : events) {
    ranks.insert(event.rank);
    EXPECT_EQ(event.call, "exchange (call 1)");
    EXPECT_EQ(event.elements_sent, 1000);
    EXPECT_LE(event.begin, event.end);
  }
  EXPECT_EQ(ranks.size(), 3u);
}

TEST(ThreadsGroup, RanksDivideTheCallersThreads) {
  const int before = at::get_num_threads();
  at::set_num_threads(5);
  std::atomic<int> total = 0;
  run_threads_group(2, {}, [&](CpGroup&) { total += at::get_num_threads(); });
  EXPECT_EQ(total, 4);
  EXPECT_EQ(at::get_num_threads(), 5);
  total = 0;
  run_threads_group(8, {}, [&](CpGroup&) { total += at::get_num_threads(); });
  EXPECT_EQ(total, 8);
  EXPECT_EQ(at::get_num_threads(), 5);
  EXPECT_ANY_THROW(run_threads_group(2, {}, [](CpGroup&) { throw std::runtime_error("x"); }));
  EXPECT_EQ(at::get_num_threads(), 5);
  at::set_num_threads(before);
}

TEST(ThreadsGroup, RanksHaveTheCallersGradMode) {
  for (const bool enabled : {false, true}) {
    const at::AutoGradMode mode(enabled);
    run_threads_group(2, {}, [&](CpGroup&) { EXPECT_EQ(at::GradMode::is_enabled(), enabled); });
  }
}

TEST(ThreadsGroup, WhatARankThrowsKeepsItsCode) {
  const auto thrown = [](const std::function<void()>& what) {
    return [what](CpGroup& group) {
      if (group.rank() == 1) what();
      group.barrier();
    };
  };
  expect_error(ErrorCode::kOutOfMemory, {"rank 1 of 2: out of memory"},
               [&] { run_threads_group(2, {}, thrown([] { throw std::bad_alloc(); })); });
  expect_error(ErrorCode::kInternal, {"rank 1 of 2: the moon is full"},
               [&] { run_threads_group(2, {}, thrown([] { throw std::runtime_error("the moon is full"); })); });
  expect_error(ErrorCode::kInternal, {"rank 1 of 2: LibTorch: "},
               [&] { run_threads_group(2, {}, thrown([] { at::ones({2}) + at::ones({3}); })); });
  expect_error(ErrorCode::kInternal, {"rank 1 of 2", "no std::exception"},
               [&] { run_threads_group(2, {}, thrown([] { throw 7; })); });
}

TEST(ThreadsGroup, WorksAndGroupsMayOutliveTheirRun) {
  std::vector<std::unique_ptr<Work>> works(2);
  std::vector<std::shared_ptr<CpGroup>> groups(2);
  std::vector<at::Tensor> received(2);
  run_threads_group(2, {}, [&](CpGroup& group) {
    const int32_t other = 1 - group.rank();
    groups[group.rank()] = group.subgroup({0, 1});
    std::vector<at::Tensor> send(2), receive(2);
    send[other] = message(group.rank(), other, 10, at::kLong);
    receive[other] = received[group.rank()] = at::empty({10}, at::kLong);
    works[group.rank()] = groups[group.rank()]->exchange(send, receive);
  });
  for (const int32_t rank : {0, 1}) {
    works[rank]->wait();
    require_same(received[rank], message(1 - rank, rank, 10, at::kLong), "after the run");
    expect_error(ErrorCode::kCommError, {"barrier", of(rank, 2) + " has returned"}, [&] { groups[rank]->barrier(); });
  }
}

// Rank 2 gives up while the others' bytes are on their way; they reuse their buffers as soon as wait() is over. What
// would be wrong here is for ThreadSanitizer to see.
TEST(ThreadsGroup, NobodyTouchesABufferOnceItsCallHasFailed) {
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(run_threads_group(3, {},
                                   [&](CpGroup& group) {
                                     if (group.rank() == 2) {
                                       std::this_thread::sleep_for(std::chrono::microseconds(100 * round));
                                       return group.abort("enough");
                                     }
                                     std::vector<at::Tensor> send(3), receive(3);
                                     send[1 - group.rank()] = at::zeros({1 << 20});
                                     receive[1 - group.rank()] = at::zeros({1 << 20});
                                     const auto reuse = [&] {
                                       for (const auto& tensors : {send, receive}) {
                                         const at::Tensor& buffer = tensors[1 - group.rank()];
                                         std::memset(buffer.mutable_data_ptr(), 1, buffer.nbytes());
                                       }
                                     };
                                     while (true) {
                                       const std::unique_ptr<Work> work = group.exchange(send, receive);
                                       try {
                                         work->wait();
                                       } catch (const Error&) {
                                         reuse();
                                         throw;
                                       }
                                       reuse();
                                     }
                                   }),
                 Error);
  }
}

// A failure in an exchange that nobody waited for is not lost.
TEST(ThreadsGroup, AnUnwaitedFailureIsThrownAtTheEnd) {
  expect_error(ErrorCode::kCommError, {"rank 1 of 2 returned before its first call", "exchange (call 1)"}, [] {
    run_threads_group(2, {}, [](CpGroup& group) {
      if (group.rank() == 1) return;
      std::vector<at::Tensor> send(2), receive(2);
      send[1] = at::ones({1});
      group.exchange(send, receive);
    });
  });
}

TEST(ThreadsGroupDeathTest, ARankThatNeverComesBackEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(run_threads_group(2, {.deadline = 50ms},
                                [](CpGroup& group) {
                                  if (group.rank() == 1) std::this_thread::sleep_for(1h);
                                  group.barrier();
                                }),
              ::testing::ExitedWithCode(1), "rank 1 of 2 did not call barrier.*Still running.*rank 1 of 2");
}

}  // namespace
}  // namespace attnmux::testing
