#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <thread>

#include "attnmux/cp_group.h"
#include "attnmux/error.h"
#include "attnmux/log.h"
#include "rank_error.h"
#include "threads_world.h"

namespace attnmux {
namespace {

class ThreadsWork final : public Work {
 public:
  ThreadsWork(std::shared_ptr<ThreadsWorld> world, std::shared_ptr<Call> call, int32_t member)
      : world_(std::move(world)), call_(std::move(call)), member_(member) {}
  ~ThreadsWork() override {
    if (!waited_) world_->settle(*call_, member_);
  }
  void wait() override {
    waited_ = true;
    world_->wait(*call_, member_);
  }

 private:
  std::shared_ptr<ThreadsWorld> world_;
  std::shared_ptr<Call> call_;
  int32_t member_;
  bool waited_ = false;
};

class ThreadsGroup final : public CpGroup {
 public:
  ThreadsGroup(std::shared_ptr<ThreadsWorld> world, std::shared_ptr<Channel> channel, int32_t member)
      : world_(std::move(world)), channel_(std::move(channel)), member_(member) {}

  std::string kind() const override { return "threads"; }
  int32_t rank() const override { return member_; }
  int32_t size() const override { return static_cast<int32_t>(channel_->members.size()); }

  std::unique_ptr<Work> exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override {
    check_exchange(member_, size(), send, receive);
    return start(exchange_post("exchange", std::move(send), std::move(receive)));
  }

  std::unique_ptr<Work> all_reduce(at::Tensor values, ReduceOp op) override {
    check_all_reduce(values);
    Post post{.call = "all_reduce(" + to_string(op) + ", " + to_string(extent_of(values)) + ")"};
    post.values = std::move(values);
    post.op = op;
    post.meets_all = true;
    return start(std::move(post));
  }

  // An exchange in which every rank sends the same.
  std::unique_ptr<Work> all_gather(at::Tensor mine, at::Tensor all) override {
    check_all_gather(size(), mine, all);
    std::vector<at::Tensor> receive;
    for (int32_t rank = 0; rank < size(); ++rank) receive.push_back(all.detach().select(0, rank));
    Post post = exchange_post("all_gather(" + to_string(extent_of(mine)) + ")", std::vector<at::Tensor>(size(), mine),
                              std::move(receive));
    post.meets_all = true;
    return start(std::move(post));
  }

  void barrier() override {
    Post post{.call = "barrier"};
    post.meets_all = true;
    start(std::move(post))->wait();
  }

  std::shared_ptr<CpGroup> subgroup(const std::vector<int32_t>& ranks) override {
    check_subgroup(member_, size(), ranks);
    Post post{.call = "subgroup"};
    post.subgroup = ranks;
    post.meets_all = true;
    const std::shared_ptr<Call> call = world_->post(channel_, member_, std::move(post));
    world_->wait(*call, member_);
    const auto member = std::lower_bound(ranks.begin(), ranks.end(), member_) - ranks.begin();
    return std::make_shared<ThreadsGroup>(world_, world_->subgroup_of(*call, member_), static_cast<int32_t>(member));
  }

  void abort(const std::string& reason) noexcept override {
    try {
      world_->abort(channel_->members[member_], reason);
    } catch (const std::bad_alloc&) {
      std::terminate();  // without memory for a sentence no rank can be told; the process ends instead of hanging
    }
  }

  int64_t elements_sent() const override { return world_->elements_sent(*channel_, member_); }

 private:
  static Post exchange_post(std::string call, std::vector<at::Tensor> send, std::vector<at::Tensor> receive) {
    Post post{.call = std::move(call)};
    for (const at::Tensor& tensor : send) post.send_extents.push_back(extent_of(tensor));
    for (const at::Tensor& tensor : receive) post.receive_extents.push_back(extent_of(tensor));
    post.send = std::move(send);
    post.receive = std::move(receive);
    return post;
  }

  std::unique_ptr<Work> start(Post post) {
    return std::make_unique<ThreadsWork>(world_, world_->post(channel_, member_, std::move(post)), member_);
  }

  std::shared_ptr<ThreadsWorld> world_;
  std::shared_ptr<Channel> channel_;
  int32_t member_;
};

// One rank: its thread runs this, its communication thread lives within.
class RankThread {
 public:
  RankThread(std::shared_ptr<ThreadsWorld> world, int32_t rank) : world_(std::move(world)), rank_(rank) {}

  void run(const at::ThreadLocalState& caller, int threads, const std::function<void(CpGroup& group)>& body) noexcept {
    std::thread mover;
    try {
      mover = std::thread([this] { world_->move_bytes(rank_); });
      const at::ThreadLocalStateGuard state(caller);
      at::set_num_threads(threads);
      ThreadsGroup group(world_, world_->channel(), rank_);
      body(group);
    } catch (...) {
      error_ = as_error(std::current_exception());
      world_->fail(rank_, error_->what());
    }
    world_->end(rank_);
    if (mover.joinable()) mover.join();
    world_->leave(rank_);
  }

  const std::optional<Error>& error() const { return error_; }

 private:
  std::shared_ptr<ThreadsWorld> world_;
  int32_t rank_;
  std::optional<Error> error_;
};

// at::set_num_threads() is of the calling thread, and also what threads start with.
class RestoreThreadCount {
 public:
  RestoreThreadCount() : threads_(at::get_num_threads()) {}
  ~RestoreThreadCount() { at::set_num_threads(threads_); }
  RestoreThreadCount(const RestoreThreadCount&) = delete;
  RestoreThreadCount& operator=(const RestoreThreadCount&) = delete;
  int threads() const { return threads_; }

 private:
  int threads_;
};

void throw_first_error(const ThreadsWorld& world, const std::vector<RankThread>& ranks) {
  const std::string failure = world.failure();
  if (failure.empty()) return;
  const auto rethrow = [&](size_t rank) {
    const auto& error = ranks[rank].error();
    if (error) throw of_rank(static_cast<int32_t>(rank), static_cast<int32_t>(ranks.size()), *error);
  };
  if (world.first_to_fail() >= 0) rethrow(world.first_to_fail());
  for (size_t rank = 0; rank < ranks.size(); ++rank) rethrow(rank);
  throw Error(ErrorCode::kCommError, failure);  // of a call that nobody waited for
}

}  // namespace

void run_threads_group(int64_t ranks_wanted, const CpGroupOptions& options,
                       const std::function<void(CpGroup& group)>& body) {
  check_options(options);
  if (ranks_wanted < 1 || ranks_wanted > kMostThreadRanks) {
    throw Error(ErrorCode::kInvalidArgument,
                "threads group: " + std::to_string(ranks_wanted) + " ranks; it takes one or more, at most " +
                    std::to_string(kMostThreadRanks) + ", as each is two threads of this process; more are processes");
  }
  const auto size = static_cast<int32_t>(ranks_wanted);
  if (size == 1) return body(*single_rank_group());
  const RestoreThreadCount restore;
  const at::ThreadLocalState caller;
  const auto world = std::make_shared<ThreadsWorld>(size, options);
  std::vector<RankThread> ranks;
  for (int32_t rank = 0; rank < size; ++rank) ranks.emplace_back(world, rank);
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < size; ++rank) {
    try {
      threads.emplace_back([&, rank] { ranks[rank].run(caller, std::max(1, restore.threads() / size), body); });
    } catch (const std::system_error& error) {
      world->fail(rank, std::string("its thread could not be started: ") + error.what());
      world->end(rank);
      world->leave(rank);
    }
  }
  if (const std::string stuck = world->wait_for_all(); !stuck.empty()) {
    log_error("threads group: " + world->failure() + ". Still running a deadline (" +
              std::to_string(options.deadline.count()) + " ms) later: " + stuck +
              ". A thread cannot be stopped from outside; the process ends");
    std::_Exit(exit_status(ErrorCode::kCommError));
  }
  for (std::thread& thread : threads) thread.join();
  throw_first_error(*world, ranks);
}

}  // namespace attnmux
