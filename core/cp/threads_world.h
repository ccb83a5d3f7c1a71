// Ranks as threads of one process: the state that they share, and the communication threads that move the bytes.
//
// Who copies: the receiver's communication thread, straight from the sender's tensor into the receiver's. A rank's own
// thread posts a call and computes on; nothing is copied twice. A sum is done by all communication threads, each for
// its share of the elements, in place. Two ranks that exchange nothing in a call do not wait for each other.
//
// One mutex guards everything but the bytes. Tensors of a call are touched outside of it, while `in_flight` of their
// post is above zero; wait() of a failed call returns only once it is zero, so that nobody reads a buffer whose owner
// has gone on.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "attnmux/cp_group.h"
#include "attnmux/cp_transport.h"

namespace attnmux {

using TimePoint = std::chrono::steady_clock::time_point;

// What one rank gave to one call.
struct Post {
  std::string call;                                   // ranks must agree on it: "exchange", "all_reduce(sum, 24 Float)"
  std::vector<at::Tensor> send, receive;              // [members] of an exchange
  std::vector<Extent> send_extents, receive_extents;  // [members]; they stay when the tensors are dropped
  at::Tensor values;                                  // of an all_reduce
  ReduceOp op = ReduceOp::kSum;
  std::vector<int32_t> subgroup;
  bool meets_all = false;  // waits for every member, also where nothing is exchanged

  std::string label;  // "exchange (call 7)"
  TimePoint posted;
  int32_t pending = 1;    // steps until this rank's part is done: its own, and one for each other that uses its tensors
  int32_t in_flight = 0;  // communication threads that touch its tensors now
  int64_t elements_sent = 0;
};

struct Channel;

struct Call {
  std::vector<int32_t> members;                                        // world ranks
  std::vector<std::optional<Post>> posts;                              // [members]
  std::map<std::vector<int32_t>, std::shared_ptr<Channel>> subgroups;  // made by this call

  bool needs(int32_t member, int32_t other) const;  // REQUIRES: posts[member]
};

// A group: the world or a subgroup. Its calls are numbered, the same on every member.
struct Channel {
  std::vector<int32_t> members;                    // world ranks, ascending
  std::string of_whom;                             // " of ranks 0, 2" in labels; the world: empty
  std::vector<int64_t> posted;                     // [members] calls so far
  std::map<int64_t, std::shared_ptr<Call>> calls;  // those that some member has not posted yet
  std::vector<int64_t> elements_sent;              // [members]
};

class ThreadsWorld {
 public:
  ThreadsWorld(int32_t size, const CpGroupOptions& options);

  const std::shared_ptr<Channel>& channel() const { return channel_; }

  // By a rank's thread. All but abort() and elements_sent() throw Error(kCommError).
  std::shared_ptr<Call> post(const std::shared_ptr<Channel>& channel, int32_t member, Post post);
  void wait(const Call& call, int32_t member);
  std::shared_ptr<Channel> subgroup_of(Call& call, int32_t member);  // REQUIRES: wait() returned
  void abort(int32_t rank, const std::string& reason);
  int64_t elements_sent(const Channel& channel, int32_t member) const;
  void settle(const Call& call, int32_t member);  // waits until the call is done or has failed, without saying which

  // A rank's communication thread: moves bytes until end(rank) and until every call that the rank posted is over.
  void move_bytes(int32_t rank);

  // By what runs the ranks.
  void fail(int32_t rank, const std::string& text);  // its body threw
  void end(int32_t rank);                            // its body is over: no further call will come
  void leave(int32_t rank);                          // its threads are over
  std::string wait_for_all();                        // empty, or the ranks that did not leave in time after a failure
  std::string failure() const;                       // empty: none
  int32_t first_to_fail() const;                     // the rank that threw or gave up first, -1: another failure

 private:
  struct Task {
    std::shared_ptr<Channel> channel;
    std::shared_ptr<Call> call;
    int32_t member = 0;
  };
  struct Rank {
    std::deque<Task> tasks;
    std::string last_call;           // label
    const Call* waits_in = nullptr;  // the call that its thread waits for, as which member
    int32_t waits_as = 0;
    bool ended = false;
    bool left = false;
  };
  using Lock = std::unique_lock<std::mutex>;

  void carry_out(Lock& lock, const Task& task);
  bool meet_members(Lock& lock, const Task& task);  // false: the world failed
  bool agree(const Call& call, int32_t member, int32_t other);
  void take(Lock& lock, const Task& task, int32_t from);
  void reduce(Lock& lock, const Task& task);
  void step_done(Lock& lock, Call& call, int32_t member);  // unlocks for a while
  void wait_until_over(Lock& lock, const Call& call, int32_t member);
  void set_failure(const std::string& text, int32_t thrower = -1);
  void set_deadline_failure(const Call& call, int32_t member);
  std::string name(int32_t rank) const;    // "rank 2 of 4"
  std::string so_far(int32_t rank) const;  // "after barrier (call 6)"

  CpGroupOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Rank> ranks_;
  std::shared_ptr<Channel> channel_;  // of the world
  std::string failure_;               // empty: none
  TimePoint failed_at_;
  int32_t first_to_fail_ = -1;
};

}  // namespace attnmux
