// The ranks that share one sequence, and what a transport must be able to do for them.
//
//   run_threads_group(4, {.deadline = std::chrono::seconds(60)}, [&](CpGroup& group) {
//     std::unique_ptr<Work> work = group.exchange(send, receive);      // send[r] goes to rank r, receive[r] comes from it
//     ... compute ...
//     work->wait();
//   });
//
// Implementations: one rank and threads of one process (here), MPI and NCCL (plugins). Every call is collective: all
// ranks make the same calls in the same order, each rank from one thread at a time. Nothing hangs: a call that a rank
// does not answer within the deadline, and every call after abort() or after a rank's end, throws Error(kCommError)
// naming that rank on all others.
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
  virtual std::shared_ptr<CpGroup> subgroup(const std::vector<int32_t>& ranks) = 0;

  // This rank gives up: all others' pending and later calls throw Error(kCommError) with this reason. Never blocks.
  virtual void abort(const std::string& reason) noexcept = 0;
};

struct CpGroupOptions {
  std::chrono::milliseconds deadline{std::chrono::minutes(5)};  // for one call, the slowest rank's computing included
};

// One rank alone: every exchange is a copy.
ATTNMUX_API std::shared_ptr<CpGroup> single_rank_group();

// Runs `body` on `size` threads, each with its rank's group. When one throws, the others fail within the deadline;
// then the first error is thrown here, "rank 2 of 4: ..." in front of its text.
ATTNMUX_API void run_threads_group(int32_t size, const CpGroupOptions& options,
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
