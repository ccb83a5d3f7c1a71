// The ranks that share one sequence, and what a transport must be able to do for them.
//
//   run_threads_group(4, {.deadline = std::chrono::seconds(60)}, [&](CpGroup& group) {
//     std::unique_ptr<Work> work = group.exchange(send, receive);      // send[r] goes to rank r, receive[r] comes from
//     it
//     ... compute ...
//     work->wait();
//   });
//
// Implementations: one rank and threads of one process (here), MPI and NCCL (plugins). Every call is collective: all
// ranks make the same calls in the same order, each rank from one thread at a time; calls that do not match are errors
// that name both ranks. Nothing hangs: a call that a rank does not answer within the deadline, and every call after
// abort() or after a rank's end, throws Error(kCommError) naming that rank on all others. A group that failed stays so.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "attnmux/export.h"

namespace attnmux {

// An operation under way. Destroyed unwaited it waits, and swallows nothing: a failure is thrown by the next call.
class ATTNMUX_API Work {
 public:
  virtual ~Work();
  virtual void wait() = 0;  // throws Error(kCommError)
};

enum class ReduceOp : uint8_t { kSum, kMax };

class ATTNMUX_API CpGroup {
 public:
  virtual ~CpGroup();

  virtual std::string kind() const = 0;  // "single", "threads", "mpi", "nccl"
  virtual int32_t rank() const = 0;
  virtual int32_t size() const = 0;

  // Many to many: send[r] goes to rank r, receive[r] is filled by rank r; undefined or empty tensors send nothing. All
  // contiguous; what r sends here has the size and dtype of what is received there. Both are kept until the end.
  virtual std::unique_ptr<Work> exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) = 0;

  // In place, contiguous; sums in the order of ranks, so that every rank gets the same bits.
  virtual std::unique_ptr<Work> all_reduce(at::Tensor values, ReduceOp op) = 0;

  // all: [size, ...mine], filled.
  virtual std::unique_ptr<Work> all_gather(at::Tensor mine, at::Tensor all) = 0;

  virtual void barrier() = 0;

  // A group of some of these ranks (ascending, this one among them); ranks in no common subgroup pass their own lists.
  // Fails with the group that it was made from, and the other way round.
  virtual std::shared_ptr<CpGroup> subgroup(const std::vector<int32_t>& ranks) = 0;

  // This rank gives up: all others' pending and later calls throw Error(kCommError) with this reason. Never blocks.
  virtual void abort(const std::string& reason) noexcept = 0;

  // What exchange() really sent to other ranks since this group was made: counted where the bytes are moved.
  virtual int64_t elements_sent() const = 0;
};

// One call of one rank, from the call until its last byte was moved.
struct CpEvent {
  int32_t rank;           // in the group that was connected or run
  std::string call;       // "exchange (call 7)"
  int64_t elements_sent;  // to other ranks
  std::chrono::steady_clock::time_point begin, end;
};

struct CpGroupOptions {
  std::chrono::milliseconds deadline{std::chrono::minutes(5)};  // for one call, the slowest rank's computing included
  // Told of every call that ended well. Runs in communication threads, several at once; must not throw or call a group.
  std::function<void(const CpEvent& event)> observer;
};

// One rank alone: every exchange is a copy.
ATTNMUX_API std::shared_ptr<CpGroup> single_rank_group();

inline constexpr int64_t kMostThreadRanks = 256;  // each is two threads of this process

// Runs `body` on `size` threads, at most kMostThreadRanks (one rank: the caller's, its errors as they are), each with
// its rank's group, the caller's grad mode and its share of at::get_num_threads(). CPU tensors. When a rank throws, the
// others' calls fail at once; then the first error is thrown here, "rank 2 of 4: ..." in front. No thread outlives this
// call. A rank that stalls is waited for until a deadline after the failure: no thread can be stopped. Then the process
// ends, loudly.
ATTNMUX_API void run_threads_group(int64_t size, const CpGroupOptions& options,
                                   const std::function<void(CpGroup& group)>& body);

// What a plugin registers for a transport between processes: config names it by id ("mpi").
class ATTNMUX_API CpGroupFactory {
 public:
  virtual ~CpGroupFactory();
  virtual std::string id() const = 0;
  virtual std::string description() const = 0;
  // The world of this launch. Throws Error(kUsage) where the process was not started by a launcher that this transport
  // knows, naming the command to use.
  virtual std::shared_ptr<CpGroup> connect(const CpGroupOptions& options) const = 0;
};

}  // namespace attnmux
