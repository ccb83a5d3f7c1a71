// The thread that makes all MPI calls of this process: carries out operations, tells the other ranks of failures, and
// finds out whom everybody waits for when a deadline passes.
//
// Ranks tell each other news on a tag of their own: that a rank failed (with the sentence that every call then throws),
// that it left (its groups are gone), and what it waits for, when another asks. One mutex guards what both threads
// see; what follows it under "communication thread" is touched by that thread alone.
#pragma once

#include <mpi.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "attnmux/cp_group.h"
#include "cp_mpi/mpi_transfer.h"

namespace attnmux {

// One call of this rank.
struct MpiOperation {
  MpiCall call;
  int tag = 0;
  // Run one behind another in the communication thread; each says what is exchanged next.
  std::deque<std::function<std::vector<MpiPeer>()>> phases;
  std::vector<at::Tensor> tensors;  // kept until the end
  std::function<void()> on_done;
  int64_t elements_sent = 0;  // to others

  std::chrono::steady_clock::time_point posted;
  bool done = false;                      // guarded by the runtime's mutex
  std::unique_ptr<MpiTransfer> transfer;  // communication thread
};

class MpiRuntime {
 public:
  // Leaked, as MPI is the process's.
  static MpiRuntime& instance();

  // Starts MPI. Throws Error(kUsage), once connected or without a launcher.
  void connect(const CpGroupOptions& options);
  int32_t rank() const { return rank_; }
  int32_t size() const { return size_; }

  void submit(const std::shared_ptr<MpiOperation>& operation);  // throws Error(kCommError) after a failure
  void wait(const MpiOperation& operation);                     // likewise
  void settle(const MpiOperation& operation);                   // waits until it is done or has failed
  void abort(const std::string& reason);
  void leave(bool with_an_error);  // this rank's groups are gone
  void shutdown() noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  enum class NewsKind : int32_t { kFailed, kLeft, kAsk, kAnswer };
  struct News {
    NewsKind kind;
    int32_t waits_for;    // of an answer: a rank, -1: it computes
    char text[1000];      // the failure, or its last call
    char waits_in[1000];  // of an answer: a call
  };
  struct Outgoing {
    News news;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  void run(std::promise<void> started);
  void start_mpi();
  bool step();  // false: there was nothing to do
  bool advance(MpiOperation& operation);
  void finish(MpiOperation& operation);
  void check_left();
  void check_deadlines();
  void fail_for_deadline(const MpiOperation& operation);
  void tell(NewsKind kind, const std::string& text, int32_t to, int32_t waits_for = -1,
            const std::string& waits_in = "");
  void tell_all(NewsKind kind, const std::string& text);
  bool hear();
  void answer(int32_t to);
  void set_failure(const std::string& text, bool tell_others);
  void drop_operations();
  void end_mpi();
  std::string name(int32_t rank) const;
  std::string so_far() const;
  std::vector<std::shared_ptr<MpiOperation>> under_way() const;

  std::mutex mutex_;
  std::condition_variable changed_;
  CpGroupOptions options_;
  int32_t rank_ = 0;
  int32_t size_ = 1;
  std::vector<std::shared_ptr<MpiOperation>> submitted_;
  const MpiOperation* waits_in_ = nullptr;  // the rank's own thread does
  std::string last_call_;
  std::string failure_;              // empty: none
  std::string failure_to_tell_;      // found by this rank; empty: the others know
  bool operations_dropped_ = false;  // after a failure: their tensors are no longer touched
  bool leaving_ = false;
  bool stuck_ = false;  // in MPI_Init
  bool stop_ = false;
  bool finished_ = false;
  std::thread thread_;

  // Communication thread.
  std::map<int, std::deque<std::shared_ptr<MpiOperation>>> queues_;  // by tag: not all phases begun
  std::vector<std::shared_ptr<MpiOperation>> active_;                // in their last phase
  std::vector<std::shared_ptr<MpiOperation>> dropped_;               // failed; MPI may still hold their buffers
  std::list<Outgoing> outgoing_;
  News incoming_{};
  MPI_Request incoming_request_ = MPI_REQUEST_NULL;
  bool left_told_ = false;
  std::vector<std::optional<std::string>> left_;  // [ranks] the last call of one that left
  std::optional<Clock::time_point> asked_;        // for whom everybody waits
  std::vector<std::optional<News>> answers_;      // [ranks]
};

}  // namespace attnmux
