#include "threads_world.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "attnmux/error.h"

namespace attnmux {
namespace {

using Clock = std::chrono::steady_clock;

// Beyond it a point in time would overflow.
constexpr std::chrono::milliseconds kLongestDeadline = std::chrono::hours(24 * 365);

std::shared_ptr<Channel> make_channel(std::vector<int32_t> members, const std::string& of_whom) {
  const size_t size = members.size();
  auto channel = std::make_shared<Channel>();
  channel->members = std::move(members);
  channel->of_whom = of_whom;
  channel->posted.assign(size, 0);
  channel->elements_sent.assign(size, 0);
  return channel;
}

std::vector<int32_t> all_ranks(int32_t size) {
  std::vector<int32_t> ranks(size);
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

// Steps until a post is done: this member's own, and one for each other that reads its tensors.
int32_t steps_of(const Post& post, int32_t member, int32_t size) {
  if (post.values.defined()) return size;
  int32_t steps = 1;
  for (int32_t other = 0; other < static_cast<int32_t>(post.send_extents.size()); ++other) {
    if (other != member && post.send_extents[other].elements > 0) ++steps;
  }
  return steps;
}

}  // namespace

bool Call::needs(int32_t member, int32_t other) const {
  const Post& post = *posts[member];
  return post.meets_all || post.send_extents[other].elements > 0 || post.receive_extents[other].elements > 0;
}

ThreadsWorld::ThreadsWorld(int32_t size, const CpGroupOptions& options)
    : options_(options), ranks_(size), channel_(make_channel(all_ranks(size), "")) {
  options_.deadline = std::min(options_.deadline, kLongestDeadline);
}

std::string ThreadsWorld::name(int32_t rank) const {
  return "rank " + std::to_string(rank) + " of " + std::to_string(ranks_.size());
}

std::string ThreadsWorld::so_far(int32_t rank) const {
  const std::string& last = ranks_[rank].last_call;
  return last.empty() ? "before its first call" : "after " + last;
}

// --- a rank's thread ---

std::shared_ptr<Call> ThreadsWorld::post(const std::shared_ptr<Channel>& channel, int32_t member, Post post) {
  const Lock lock(mutex_);
  const int32_t rank = channel->members[member];
  const int64_t number = channel->posted[member] + 1;
  post.label = post.call + " (call " + std::to_string(number) + channel->of_whom + ")";
  if (!failure_.empty()) throw Error(ErrorCode::kCommError, post.label + ": " + failure_);
  if (ranks_[rank].ended) {
    throw Error(ErrorCode::kCommError, post.label + ": " + name(rank) + " has returned; its group ended with it");
  }
  std::shared_ptr<Call>& slot = channel->calls[number];
  if (slot == nullptr) slot = std::make_shared<Call>(Call{channel->members, {}, {}});
  const std::shared_ptr<Call> call = slot;
  call->posts.resize(channel->members.size());
  post.posted = Clock::now();
  post.pending = steps_of(post, member, static_cast<int32_t>(channel->members.size()));
  ranks_[rank].last_call = post.label;
  call->posts[member] = std::move(post);
  channel->posted[member] = number;
  if (std::all_of(call->posts.begin(), call->posts.end(), [](const auto& given) { return given.has_value(); })) {
    channel->calls.erase(number);
  }
  ranks_[rank].tasks.push_back({channel, call, member});
  changed_.notify_all();
  return call;
}

void ThreadsWorld::wait_until_over(Lock& lock, const Call& call, int32_t member) {
  Rank& me = ranks_[call.members[member]];
  const Post& post = *call.posts[member];
  me.waits_in = &call;
  me.waits_as = member;
  changed_.wait(lock, [&] { return post.pending == 0 || (!failure_.empty() && post.in_flight == 0); });
  me.waits_in = nullptr;
}

void ThreadsWorld::wait(const Call& call, int32_t member) {
  Lock lock(mutex_);
  wait_until_over(lock, call, member);
  const Post& post = *call.posts[member];
  if (post.pending > 0) throw Error(ErrorCode::kCommError, post.label + ": " + failure_);
}

void ThreadsWorld::settle(const Call& call, int32_t member) {
  Lock lock(mutex_);
  wait_until_over(lock, call, member);
}

std::shared_ptr<Channel> ThreadsWorld::subgroup_of(Call& call, int32_t member) {
  const Lock lock(mutex_);
  const Post& mine = *call.posts[member];
  std::vector<int32_t> members;
  for (const int32_t other : mine.subgroup) {
    const Post& theirs = *call.posts[other];
    if (theirs.subgroup != mine.subgroup) {
      set_failure(name(call.members[member]) + " asked for the subgroup {" + to_string(mine.subgroup) + "} and " +
                  name(call.members[other]) + " for {" + to_string(theirs.subgroup) + "} in " + mine.label);
      throw Error(ErrorCode::kCommError, mine.label + ": " + failure_);
    }
    members.push_back(call.members[other]);
  }
  std::shared_ptr<Channel>& channel = call.subgroups[mine.subgroup];
  if (channel == nullptr) channel = make_channel(members, " of ranks " + to_string(members));
  return channel;
}

int64_t ThreadsWorld::elements_sent(const Channel& channel, int32_t member) const {
  const Lock lock(mutex_);
  return channel.elements_sent[member];
}

// --- a rank's communication thread ---

void ThreadsWorld::move_bytes(int32_t rank) {
  Lock lock(mutex_);
  Rank& me = ranks_[rank];
  while (true) {
    changed_.wait(lock, [&] { return !me.tasks.empty() || me.ended; });
    if (me.tasks.empty()) return;
    Task task = std::move(me.tasks.front());
    me.tasks.pop_front();
    carry_out(lock, task);
    lock.unlock();
    task = {};  // the call's last owner frees its tensors
    lock.lock();
  }
}

void ThreadsWorld::carry_out(Lock& lock, const Task& task) {
  if (!meet_members(lock, task)) return;
  if (task.call->posts[task.member]->values.defined()) reduce(lock, task);
  step_done(lock, *task.call, task.member);
}

// Takes what each member sends, in the order in which they come.
bool ThreadsWorld::meet_members(Lock& lock, const Task& task) {
  const Call& call = *task.call;
  const Post& mine = *call.posts[task.member];
  const TimePoint deadline = mine.posted + options_.deadline;
  std::vector<int32_t> missing;
  for (int32_t other = 0; other < static_cast<int32_t>(call.members.size()); ++other) {
    if (other == task.member || call.needs(task.member, other)) missing.push_back(other);
  }
  while (failure_.empty()) {
    if (missing.empty()) return true;
    const auto next =
        std::find_if(missing.begin(), missing.end(), [&](int32_t other) { return call.posts[other].has_value(); });
    if (next != missing.end()) {
      const int32_t other = *next;
      missing.erase(next);
      if (agree(call, task.member, other)) take(lock, task, other);
      continue;
    }
    const auto ended =
        std::find_if(missing.begin(), missing.end(), [&](int32_t other) { return ranks_[call.members[other]].ended; });
    if (ended != missing.end()) {
      const int32_t rank = call.members[*ended];
      set_failure(name(rank) + " returned " + so_far(rank) + ", without calling " + mine.label);
    } else if (Clock::now() >= deadline) {
      set_deadline_failure(call, task.member);
    } else {
      changed_.wait_until(lock, deadline);
    }
  }
  return false;
}

bool ThreadsWorld::agree(const Call& call, int32_t member, int32_t other) {
  const Post& mine = *call.posts[member];
  const Post& theirs = *call.posts[other];
  const std::string my_name = name(call.members[member]);
  const std::string their_name = name(call.members[other]);
  if (mine.call != theirs.call) {
    set_failure(my_name + " called " + mine.label + " and " + their_name + " called " + theirs.label);
    return false;
  }
  const auto check = [&](const std::string& sender, const Extent& sent, const std::string& receiver,
                         const Extent& expected) {
    if (sent.agrees_with(expected)) return true;
    set_failure("in " + mine.label + " " + sender + " sends " + to_string(sent) + " to " + receiver +
                ", which expects " + to_string(expected));
    return false;
  };
  if (mine.send_extents.empty()) return true;
  return check(their_name, theirs.send_extents[member], my_name, mine.receive_extents[other]) &&
         check(my_name, mine.send_extents[other], their_name, theirs.receive_extents[member]);
}

void ThreadsWorld::take(Lock& lock, const Task& task, int32_t from) {
  Call& call = *task.call;
  Post& mine = *call.posts[task.member];
  Post& theirs = *call.posts[from];
  const int64_t elements = mine.receive_extents.empty() ? 0 : mine.receive_extents[from].elements;
  if (elements == 0) return;
  const void* source = theirs.send[task.member].const_data_ptr();
  void* target = mine.receive[from].mutable_data_ptr();
  const size_t bytes = mine.receive[from].nbytes();
  ++mine.in_flight;
  ++theirs.in_flight;
  lock.unlock();
  std::memmove(target, source, bytes);
  lock.lock();
  --mine.in_flight;
  --theirs.in_flight;
  if (!failure_.empty()) changed_.notify_all();  // waiters for in_flight
  if (from == task.member) return;
  if (!mine.meets_all) {  // an exchange
    theirs.elements_sent += elements;
    task.channel->elements_sent[from] += elements;
  }
  step_done(lock, call, from);
}

// This member's share of the elements, on every member's tensor. Nobody else touches that share.
void ThreadsWorld::reduce(Lock& lock, const Task& task) {
  Call& call = *task.call;
  const Post& mine = *call.posts[task.member];
  const int64_t elements = mine.values.numel();
  const int64_t size = static_cast<int64_t>(call.members.size());
  std::vector<void*> buffers;
  for (std::optional<Post>& post : call.posts) {
    buffers.push_back(post->values.mutable_data_ptr());
    ++post->in_flight;
  }
  lock.unlock();
  reduce_in_rank_order(mine.values.scalar_type(), mine.op, buffers, elements * task.member / size,
                       elements * (task.member + 1) / size);
  lock.lock();
  for (std::optional<Post>& post : call.posts) --post->in_flight;
  if (!failure_.empty()) changed_.notify_all();
  for (int32_t other = 0; other < size; ++other) {
    if (other != task.member) step_done(lock, call, other);
  }
}

void ThreadsWorld::step_done(Lock& lock, Call& call, int32_t member) {
  Post& post = *call.posts[member];
  if (--post.pending > 0) return;
  const std::vector<at::Tensor> dropped_send = std::move(post.send);
  const std::vector<at::Tensor> dropped_receive = std::move(post.receive);
  const at::Tensor dropped_values = std::move(post.values);
  const CpEvent event{call.members[member], post.label, post.elements_sent, post.posted, Clock::now()};
  changed_.notify_all();
  if (!options_.observer) return;
  lock.unlock();
  options_.observer(event);
  lock.lock();
}

// --- failures ---

void ThreadsWorld::set_failure(const std::string& text, int32_t thrower) {
  if (!failure_.empty()) return;  // what comes later follows from it
  failure_ = text;
  failed_at_ = Clock::now();
  first_to_fail_ = thrower;
  changed_.notify_all();
}

// Names the rank that everybody waits for in the end: one that did not come may itself wait for another.
void ThreadsWorld::set_deadline_failure(const Call& call, int32_t member) {
  const Call* blocked = &call;
  int32_t blocked_member = member;
  int32_t culprit = call.members[member];
  for (size_t step = 0; step <= ranks_.size(); ++step) {
    int32_t missing = -1;
    for (int32_t other = 0; other < static_cast<int32_t>(blocked->members.size()) && missing < 0; ++other) {
      if (!blocked->posts[other] && blocked->needs(blocked_member, other)) missing = other;
    }
    if (missing < 0) break;  // it waits for bytes, not for a rank
    culprit = blocked->members[missing];
    const Rank& rank = ranks_[culprit];
    if (rank.waits_in == nullptr) break;
    blocked_member = rank.waits_as;
    blocked = rank.waits_in;
  }
  const std::string& last = ranks_[culprit].last_call;
  set_failure(name(culprit) + " did not call " + blocked->posts[blocked_member]->label + " within " +
              std::to_string(options_.deadline.count()) + " ms; " +
              (last.empty() ? "it has called nothing yet" : "its last call was " + last));
}

void ThreadsWorld::abort(int32_t rank, const std::string& reason) {
  const Lock lock(mutex_);
  set_failure(name(rank) + " gave up " + so_far(rank) + ": " + reason, rank);
}

void ThreadsWorld::fail(int32_t rank, const std::string& text) {
  const Lock lock(mutex_);
  set_failure(name(rank) + " failed " + so_far(rank) + ": " + text, rank);
}

// --- the end ---

void ThreadsWorld::end(int32_t rank) {
  const Lock lock(mutex_);
  ranks_[rank].ended = true;
  changed_.notify_all();
}

void ThreadsWorld::leave(int32_t rank) {
  const Lock lock(mutex_);
  ranks_[rank].left = true;
  changed_.notify_all();
}

std::string ThreadsWorld::wait_for_all() {
  Lock lock(mutex_);
  const auto all_left = [&] { return std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.left; }); };
  changed_.wait(lock, [&] { return all_left() || !failure_.empty(); });
  if (all_left() || changed_.wait_until(lock, failed_at_ + options_.deadline, all_left)) return {};
  std::string names;
  for (int32_t rank = 0; rank < static_cast<int32_t>(ranks_.size()); ++rank) {
    if (!ranks_[rank].left) names += (names.empty() ? "" : ", ") + name(rank) + " " + so_far(rank);
  }
  return names;
}

std::string ThreadsWorld::failure() const {
  const Lock lock(mutex_);
  return failure_;
}

int32_t ThreadsWorld::first_to_fail() const {
  const Lock lock(mutex_);
  return first_to_fail_;
}

}  // namespace attnmux
