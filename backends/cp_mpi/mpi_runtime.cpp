#include "cp_mpi/mpi_runtime.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "attnmux/launch.h"
#include "attnmux/log.h"
#include "cp_mpi/mpi_check.h"

namespace attnmux {
namespace {

using namespace std::chrono_literals;

constexpr int kNewsTag = 0;
constexpr std::chrono::milliseconds kPatience = 5s;  // with ranks that should answer or end
constexpr std::chrono::milliseconds kStartup = 10s;  // that processes may take to come up, beside a deadline
constexpr std::chrono::milliseconds kLongestDeadline = std::chrono::hours(24 * 365);

// OpenMPI loads components at run time, and most of Debian's (mca_pml_ob1, which sends everything, among them) use
// libmpi's symbols without naming libmpi. A plugin is opened RTLD_LOCAL, and so is the libmpi that it brings: without
// this MPI_Init finds no component that works. It makes libmpi's symbols visible, not the plugin's.
void show_libmpi_to_its_components() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<void*>(&MPI_Init_thread), &info) == 0 || info.dli_fname == nullptr ||
      ::dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD) == nullptr) {
    throw Error(ErrorCode::kCommError, "group \"mpi\": libmpi could not be opened for its components");
  }
}

LaunchedRank require_launch() {
  const std::optional<LaunchedRank> launched = launched_rank();
  if (!launched || launched->launcher == "torchrun") {
    throw Error(ErrorCode::kUsage,
                std::string("group \"mpi\": this process was ") +
                    (launched ? "started by torchrun (" + launched->described + ")" : "not started by a launcher") +
                    ". Start one process a rank with `mpirun -n N attnmux train ...` or `srun --mpi=pmix -n N attnmux "
                    "train ...`, or set group = \"threads\"");
  }
  return *launched;
}

void copy_text(const std::string& text, char* to, size_t size) {
  std::strncpy(to, text.c_str(), size - 1);
  to[size - 1] = '\0';
}

}  // namespace

MpiRuntime& MpiRuntime::instance() {
  static auto* runtime = new MpiRuntime;
  return *runtime;
}

std::string MpiRuntime::name(int32_t rank) const {
  return "rank " + std::to_string(rank) + " of " + std::to_string(size_);
}

std::string MpiRuntime::so_far() const { return last_call_.empty() ? "before its first call" : "after " + last_call_; }

// --- the rank's own thread ---

void MpiRuntime::connect(const CpGroupOptions& options) {
  const LaunchedRank launched = require_launch();
  std::promise<void> started;
  std::future<void> is_started = started.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (thread_.joinable() || finished_) {
      throw Error(ErrorCode::kUsage, "group \"mpi\": a process connects once; make subgroups of that group");
    }
    options_ = options;
    options_.deadline = std::min(options_.deadline, kLongestDeadline);
    thread_ = std::thread([this, promise = std::move(started)]() mutable { run(std::move(promise)); });
  }
  // MPI_Init waits for all ranks, and knows no deadline.
  const std::chrono::milliseconds patience = options_.deadline + kStartup;
  if (is_started.wait_for(patience) == std::future_status::timeout) {
    stuck_ = true;
    throw Error(ErrorCode::kCommError, "group \"mpi\": MPI_Init has not returned within " +
                                           std::to_string(patience.count()) + " ms on rank " +
                                           std::to_string(launched.rank) + " of " + std::to_string(launched.size) +
                                           " (the deadline, and " + std::to_string(kStartup.count()) +
                                           " ms for processes to start): another rank has not come to it; before that "
                                           "ranks cannot tell which");
  }
  is_started.get();
  if (size_ == launched.size && rank_ == launched.rank) return;
  const std::string mpi = name(rank_);
  leave(/*with_an_error=*/true);
  throw Error(ErrorCode::kUsage, "group \"mpi\": " + launched.launcher + " says " + launched.described +
                                     ", and MPI says " + mpi +
                                     ". Start with the mpirun of the libmpi in use, or with `srun --mpi=pmix`");
}

void MpiRuntime::submit(const std::shared_ptr<MpiOperation>& operation) {
  const std::lock_guard lock(mutex_);
  if (!failure_.empty()) throw Error(ErrorCode::kCommError, operation->call.label() + ": " + failure_);
  if (stop_) throw Error(ErrorCode::kCommError, operation->call.label() + ": MPI was shut down");
  operation->posted = Clock::now();
  last_call_ = operation->call.label();
  submitted_.push_back(operation);
  changed_.notify_all();
}

void MpiRuntime::settle(const MpiOperation& operation) {
  std::unique_lock lock(mutex_);
  waits_in_ = &operation;
  changed_.wait(lock, [&] { return operation.done || operations_dropped_; });
  waits_in_ = nullptr;
}

void MpiRuntime::wait(const MpiOperation& operation) {
  settle(operation);
  const std::lock_guard lock(mutex_);
  if (!operation.done) throw Error(ErrorCode::kCommError, operation.call.label() + ": " + failure_);
}

void MpiRuntime::abort(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!failure_.empty()) return;
  failure_ = name(rank_) + " gave up " + so_far() + ": " + reason;
  failure_to_tell_ = failure_;
  changed_.notify_all();
}

void MpiRuntime::leave(bool with_an_error) {
  const std::lock_guard lock(mutex_);
  if (with_an_error && failure_.empty()) {
    failure_ = name(rank_) + " ended with an error " + so_far();
    failure_to_tell_ = failure_;
  }
  leaving_ = true;
  changed_.notify_all();
}

void MpiRuntime::shutdown() noexcept {
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) return;
  if (stuck_) std::_Exit(exit_status(ErrorCode::kCommError));  // connect() has said why
  stop_ = true;
  changed_.notify_all();
  // MPI_Finalize waits for all ranks, and knows no deadline.
  if (!changed_.wait_for(lock, options_.deadline + 2 * kPatience, [&] { return finished_; })) {
    log_error("MPI_Finalize of " + name(rank_) + " does not return: another rank has not come to its end within " +
              std::to_string(options_.deadline.count()) + " ms. The process ends without it");
    std::_Exit(exit_status(ErrorCode::kCommError));
  }
  lock.unlock();
  thread_.join();
}

// --- the communication thread ---

void MpiRuntime::start_mpi() {
  show_libmpi_to_its_components();
  int initialized = 0;
  check_mpi(MPI_Initialized(&initialized), "MPI_Initialized");
  if (initialized) {
    throw Error(ErrorCode::kUsage, "group \"mpi\": this program has started MPI itself; the group does that");
  }
  // FUNNELED: this thread starts MPI and is the only one that calls it.
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  if (provided < MPI_THREAD_FUNNELED) {
    throw Error(ErrorCode::kCommError, "group \"mpi\": this libmpi was built without threads");
  }
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
  left_.resize(size_);
  answers_.resize(size_);
  check_mpi(
      MPI_Irecv(&incoming_, sizeof incoming_, MPI_BYTE, MPI_ANY_SOURCE, kNewsTag, MPI_COMM_WORLD, &incoming_request_),
      "MPI_Irecv");
}

void MpiRuntime::run(std::promise<void> started) {
  try {
    start_mpi();
    started.set_value();
  } catch (...) {
    started.set_exception(std::current_exception());
    const std::lock_guard lock(mutex_);
    failure_ = "MPI could not be started";
    operations_dropped_ = true;
  }
  std::chrono::microseconds rest = 0us;
  while (true) {
    bool busy = false;
    try {
      busy = step();
    } catch (const std::exception& error) {
      set_failure(error.what(), /*tell_others=*/true);
    }
    std::unique_lock lock(mutex_);
    if (stop_ && submitted_.empty() && failure_to_tell_.empty()) break;
    // Look again at once while something moves, then ever more seldom: others may share this core. Up to 1 ms where
    // there is nothing to do but to hear news.
    const bool idle = queues_.empty() && active_.empty();
    rest = busy ? 0us : std::min<std::chrono::microseconds>(rest + 5us, idle ? 1000us : 200us);
    if (rest > 0us) {
      changed_.wait_for(lock, rest, [&] { return !submitted_.empty() || stop_; });
    } else {
      lock.unlock();
      std::this_thread::yield();
    }
  }
  end_mpi();
  const std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

bool MpiRuntime::step() {
  bool busy = false;
  std::string to_tell;
  bool failed = false;
  bool leaving = false;
  {
    const std::lock_guard lock(mutex_);
    for (std::shared_ptr<MpiOperation>& operation : submitted_) queues_[operation->tag].push_back(std::move(operation));
    busy = !submitted_.empty();
    submitted_.clear();
    to_tell = std::exchange(failure_to_tell_, {});
    failed = !failure_.empty();
    leaving = leaving_;
  }
  if (incoming_request_ == MPI_REQUEST_NULL) return false;  // MPI was not started
  if (!to_tell.empty()) tell_all(NewsKind::kFailed, to_tell);
  if (leaving && !std::exchange(left_told_, true)) {
    const std::lock_guard lock(mutex_);
    tell_all(NewsKind::kLeft, so_far());
  }
  if (failed) {
    drop_operations();
    return hear();
  }
  for (auto queue = queues_.begin(); queue != queues_.end();) {
    // The next operation of a group begins once this one's last phase has: all ranks send in one order.
    std::deque<std::shared_ptr<MpiOperation>>& operations = queue->second;
    while (!operations.empty()) {
      MpiOperation& first = *operations.front();
      if (first.transfer != nullptr && !first.transfer->advance()) break;
      const std::vector<MpiPeer> peers = first.phases.front()();
      first.phases.pop_front();
      first.transfer = std::make_unique<MpiTransfer>(first.tag, first.call, peers);
      busy = true;
      if (!first.phases.empty()) break;
      active_.push_back(std::move(operations.front()));
      operations.pop_front();
    }
    queue = operations.empty() ? queues_.erase(queue) : std::next(queue);
  }
  const auto done = std::stable_partition(active_.begin(), active_.end(),
                                          [](const auto& operation) { return !operation->transfer->advance(); });
  const std::vector<std::shared_ptr<MpiOperation>> finished(done, active_.end());
  active_.erase(done, active_.end());
  for (const std::shared_ptr<MpiOperation>& operation : finished) finish(*operation);
  check_left();
  check_deadlines();
  // MPI moves bytes only while it is called.
  for (const std::shared_ptr<MpiOperation>& operation : under_way()) {
    busy = busy || operation->transfer->bytes_are_moving();
  }
  return hear() || busy || !finished.empty();
}

void MpiRuntime::finish(MpiOperation& operation) {
  operation.transfer.reset();
  operation.tensors.clear();
  if (operation.on_done) operation.on_done();
  operation.on_done = nullptr;
  // Before the caller goes on: it may then end, and what the observer writes to with it.
  if (options_.observer) {
    options_.observer({rank_, operation.call.label(), operation.elements_sent, operation.posted, Clock::now()});
  }
  const std::lock_guard lock(mutex_);
  operation.done = true;
  changed_.notify_all();
}

std::vector<std::shared_ptr<MpiOperation>> MpiRuntime::under_way() const {
  std::vector<std::shared_ptr<MpiOperation>> operations = active_;
  for (const auto& [tag, queue] : queues_) {
    if (queue.front()->transfer != nullptr) operations.push_back(queue.front());
  }
  return operations;
}

// --- failures ---

// Runs behind a look at all operations: what a rank sent before it left has arrived.
void MpiRuntime::check_left() {
  for (const std::shared_ptr<MpiOperation>& operation : under_way()) {
    for (int32_t other = 0; other < size_; ++other) {
      if (left_[other] && operation->transfer->header_is_missing(other)) {
        set_failure(name(other) + " ended " + *left_[other] + ", without calling " + operation->call.label(),
                    /*tell_others=*/true);
        return;
      }
    }
  }
}

// A rank that does not come may itself wait for another: all are asked, then the chain is followed.
void MpiRuntime::check_deadlines() {
  const Clock::time_point now = Clock::now();
  std::shared_ptr<MpiOperation> expired;
  for (const std::shared_ptr<MpiOperation>& operation : under_way()) {
    if (now < operation->posted + options_.deadline) continue;
    if (expired == nullptr || operation->posted < expired->posted) expired = operation;
  }
  if (expired == nullptr) {
    asked_.reset();
    return;
  }
  if (!asked_) {
    asked_ = now;
    answers_.assign(size_, std::nullopt);
    for (int32_t other = 0; other < size_; ++other) {
      if (other != rank_) tell(NewsKind::kAsk, "", other);
    }
  }
  const auto answered =
      std::count_if(answers_.begin(), answers_.end(), [](const auto& news) { return news.has_value(); });
  if (answered == size_ - 1 || now > *asked_ + std::min(kPatience, options_.deadline)) fail_for_deadline(*expired);
}

void MpiRuntime::fail_for_deadline(const MpiOperation& operation) {
  int32_t culprit = operation.transfer->missing_rank();
  if (culprit < 0) return;  // it came to its end after all
  std::string label = operation.call.label();
  const char* what = operation.transfer->header_is_missing(culprit) ? " did not call " : " did not send all bytes of ";
  for (int32_t step = 0; step < size_ && answers_[culprit] && answers_[culprit]->waits_for >= 0; ++step) {
    label = answers_[culprit]->waits_in;
    culprit = answers_[culprit]->waits_for;
    what = " did not answer ";
  }
  set_failure(name(culprit) + what + label + " within " + std::to_string(options_.deadline.count()) + " ms; " +
                  (culprit == rank_    ? "it waits for the others"
                   : answers_[culprit] ? "it is still running " + std::string(answers_[culprit]->text)
                                       : "its process does not answer"),
              /*tell_others=*/true);
}

// What comes after the first failure follows from it.
void MpiRuntime::set_failure(const std::string& text, bool tell_others) {
  const std::lock_guard lock(mutex_);
  if (!failure_.empty()) return;
  failure_ = text;
  if (tell_others) failure_to_tell_ = text;
}

void MpiRuntime::drop_operations() {
  for (auto& [tag, queue] : queues_) active_.insert(active_.end(), queue.begin(), queue.end());
  queues_.clear();
  for (const std::shared_ptr<MpiOperation>& operation : active_) {
    if (operation->transfer != nullptr) operation->transfer->cancel();
  }
  dropped_.insert(dropped_.end(), active_.begin(), active_.end());
  active_.clear();
  const std::lock_guard lock(mutex_);
  operations_dropped_ = true;
  changed_.notify_all();
}

// --- news ---

void MpiRuntime::tell(NewsKind kind, const std::string& text, int32_t to, int32_t waits_for,
                      const std::string& waits_in) {
  Outgoing& outgoing = outgoing_.emplace_back();
  outgoing.news.kind = kind;
  outgoing.news.waits_for = waits_for;
  copy_text(text, outgoing.news.text, sizeof outgoing.news.text);
  copy_text(waits_in, outgoing.news.waits_in, sizeof outgoing.news.waits_in);
  check_mpi(MPI_Isend(&outgoing.news, sizeof outgoing.news, MPI_BYTE, to, kNewsTag, MPI_COMM_WORLD, &outgoing.request),
            "MPI_Isend");
}

void MpiRuntime::tell_all(NewsKind kind, const std::string& text) {
  for (int32_t other = 0; other < size_; ++other) {
    if (other != rank_) tell(kind, text, other);
  }
}

// True if there were any.
bool MpiRuntime::hear() {
  outgoing_.remove_if([](Outgoing& outgoing) {
    int sent = 0;
    check_mpi(MPI_Test(&outgoing.request, &sent, MPI_STATUS_IGNORE), "MPI_Test");
    return sent != 0;
  });
  bool heard = false;
  while (true) {
    int arrived = 0;
    MPI_Status status;
    check_mpi(MPI_Test(&incoming_request_, &arrived, &status), "MPI_Test");
    if (!arrived) return heard;
    heard = true;
    switch (incoming_.kind) {
      case NewsKind::kFailed: set_failure(incoming_.text, /*tell_others=*/false); break;
      case NewsKind::kLeft: left_[status.MPI_SOURCE] = incoming_.text; break;
      case NewsKind::kAsk: answer(status.MPI_SOURCE); break;
      case NewsKind::kAnswer: answers_[status.MPI_SOURCE] = incoming_; break;
    }
    check_mpi(
        MPI_Irecv(&incoming_, sizeof incoming_, MPI_BYTE, MPI_ANY_SOURCE, kNewsTag, MPI_COMM_WORLD, &incoming_request_),
        "MPI_Irecv");
  }
}

void MpiRuntime::answer(int32_t to) {
  int32_t waits_for = -1;
  std::string waits_in;
  std::string stands;
  {
    const std::lock_guard lock(mutex_);
    stands = so_far();
    // A queued operation waits for the one before it; that one is found by its own deadline.
    if (waits_in_ != nullptr && waits_in_->transfer != nullptr) {
      waits_for = waits_in_->transfer->missing_rank();
      waits_in = waits_in_->call.label();
    }
  }
  tell(NewsKind::kAnswer, stands, to, waits_for, waits_in);
}

// --- the end ---

void MpiRuntime::end_mpi() {
  int initialized = 0;
  if (MPI_Initialized(&initialized) != MPI_SUCCESS || !initialized) return;
  try {
    if (!left_told_) tell_all(NewsKind::kLeft, so_far());
    left_told_ = true;
    bool failed = false;
    {
      const std::lock_guard lock(mutex_);
      failed = !failure_.empty();
    }
    // News must be out before MPI ends. After a failure the others are given time to say why they end.
    const auto all_left = [&] {
      int64_t count = 1;
      for (const std::optional<std::string>& last_call : left_) count += last_call.has_value() ? 1 : 0;
      return count == size_;
    };
    const Clock::time_point until = Clock::now() + std::min(kPatience, options_.deadline);
    while (Clock::now() < until && (!outgoing_.empty() || (failed && !all_left()))) {
      if (!hear()) std::this_thread::sleep_for(1ms);
    }
    if (failed && !all_left()) MPI_Abort(MPI_COMM_WORLD, exit_status(ErrorCode::kCommError));
    MPI_Cancel(&incoming_request_);
    MPI_Request_free(&incoming_request_);
    check_mpi(MPI_Finalize(), "MPI_Finalize");
  } catch (const std::exception& error) {
    log_error(error.what());
    MPI_Abort(MPI_COMM_WORLD, exit_status(ErrorCode::kCommError));
  }
}

}  // namespace attnmux
