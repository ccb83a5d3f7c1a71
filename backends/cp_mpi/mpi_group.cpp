#include "cp_mpi/mpi_group.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <numeric>

#include "attnmux/cp_transport.h"
#include "attnmux/error.h"
#include "cp_mpi/mpi_runtime.h"

namespace attnmux {
namespace {

// MPI promises tags up to 32767; each group takes two (see MpiTransfer), and news one.
constexpr int64_t kMostGroups = 16000;

// Held by every group: when the last one goes, the other ranks learn that this one will call nothing more.
class Membership {
 public:
  Membership() : exceptions_(std::uncaught_exceptions()) {}
  ~Membership() { MpiRuntime::instance().leave(std::uncaught_exceptions() > exceptions_); }
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  int64_t next_group = 1;  // of the tags that no group of this rank has yet

 private:
  int exceptions_;
};

class MpiWork final : public Work {
 public:
  explicit MpiWork(std::shared_ptr<MpiOperation> operation) : operation_(std::move(operation)) {}
  ~MpiWork() override {
    if (!waited_) MpiRuntime::instance().settle(*operation_);
  }
  void wait() override {
    waited_ = true;
    MpiRuntime::instance().wait(*operation_);
  }

 private:
  std::shared_ptr<MpiOperation> operation_;
  bool waited_ = false;
};

const void* data_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }
void* mutable_data_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr() : nullptr; }

class MpiGroup final : public CpGroup {
 public:
  MpiGroup(std::shared_ptr<Membership> membership, std::vector<int32_t> members, int64_t group, std::string of_whom)
      : membership_(std::move(membership)),
        members_(std::move(members)),
        tag_(static_cast<int>(2 * group)),
        of_whom_(std::move(of_whom)) {
    const int32_t me = MpiRuntime::instance().rank();
    rank_ = static_cast<int32_t>(std::lower_bound(members_.begin(), members_.end(), me) - members_.begin());
  }

  std::string kind() const override { return "mpi"; }
  int32_t rank() const override { return rank_; }
  int32_t size() const override { return static_cast<int32_t>(members_.size()); }

  std::unique_ptr<Work> exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override {
    check_exchange(rank_, size(), send, receive);
    int64_t elements = 0;
    for (int32_t other = 0; other < size(); ++other) elements += other == rank_ ? 0 : extent_of(send[other]).elements;
    std::shared_ptr<MpiOperation> operation =
        exchange_operation("exchange", std::move(send), std::move(receive), false);
    operation->elements_sent = elements;
    operation->on_done = [sent = elements_sent_, elements] { *sent += elements; };
    return start(std::move(operation));
  }

  // Each rank sums its share of the elements, then all get the sums.
  std::unique_ptr<Work> all_reduce(at::Tensor values, ReduceOp op) override {
    check_all_reduce(values);
    const at::Tensor flat = values.detach().view({-1});
    const auto share = [elements = flat.numel(), size = size()](int64_t rank) {
      return std::pair{elements * rank / size, elements * (rank + 1) / size};
    };
    const auto slice = [flat, share](int64_t rank) { return flat.slice(0, share(rank).first, share(rank).second); };
    const at::Tensor mine = slice(rank_);
    std::vector<at::Tensor> arrived(size());
    std::vector<MpiPeer> shares, sums;
    for (int32_t other = 0; other < size(); ++other) {
      if (other == rank_) continue;
      arrived[other] = at::empty_like(mine);
      shares.push_back(peer(other, slice(other), arrived[other]));
      sums.push_back(peer(other, mine, slice(other)));
    }
    auto operation = std::make_shared<MpiOperation>();
    operation->call.name = "all_reduce(" + to_string(op) + ", " + to_string(extent_of(values)) + ")";
    operation->tensors = arrived;
    operation->tensors.push_back(flat);
    operation->phases.push_back([shares] { return shares; });
    operation->phases.push_back([=, rank = rank_] {
      std::vector<void*> buffers;
      for (const at::Tensor& tensor : arrived) buffers.push_back(mutable_data_of(tensor));
      buffers[rank] = mutable_data_of(mine);
      reduce_in_rank_order(mine.scalar_type(), op, buffers, 0, mine.numel());
      return sums;
    });
    return start(std::move(operation));
  }

  std::unique_ptr<Work> all_gather(at::Tensor mine, at::Tensor all) override {
    check_all_gather(size(), mine, all);
    std::vector<at::Tensor> receive;
    for (int32_t rank = 0; rank < size(); ++rank) receive.push_back(all.detach().select(0, rank));
    return start(exchange_operation("all_gather(" + to_string(extent_of(mine)) + ")",
                                    std::vector<at::Tensor>(size(), mine), std::move(receive), true));
  }

  void barrier() override {
    start(exchange_operation("barrier", std::vector<at::Tensor>(size()), std::vector<at::Tensor>(size()), true))
        ->wait();
  }

  // Every rank tells every rank its list, and the first number that none of its groups has.
  std::shared_ptr<CpGroup> subgroup(const std::vector<int32_t>& ranks) override {
    check_subgroup(rank_, size(), ranks);
    at::Tensor mine = at::full({size() + 1}, -1, at::kLong);
    const at::Tensor all = at::empty({size(), size() + 1}, at::kLong);
    mine.mutable_data_ptr<int64_t>()[0] = membership_->next_group;
    std::copy(ranks.begin(), ranks.end(), mine.mutable_data_ptr<int64_t>() + 1);
    std::vector<at::Tensor> receive;
    for (int32_t rank = 0; rank < size(); ++rank) receive.push_back(all.select(0, rank));
    std::shared_ptr<MpiOperation> operation =
        exchange_operation("subgroup", std::vector<at::Tensor>(size(), mine), std::move(receive), true);
    const std::string label = start_labelled(operation);
    MpiWork(operation).wait();

    int64_t group = 0;
    for (int32_t rank = 0; rank < size(); ++rank) group = std::max(group, all[rank][0].item<int64_t>());
    membership_->next_group = group + 1;
    if (group > kMostGroups) {
      throw Error(ErrorCode::kCommError,
                  "subgroup: " + std::to_string(kMostGroups) + " groups were made; keep and reuse them");
    }
    std::vector<int32_t> members;
    for (const int32_t rank : ranks) {
      const int64_t* theirs = all.const_data_ptr<int64_t>() + rank * (size() + 1) + 1;
      if (!std::equal(theirs, theirs + size(), mine.const_data_ptr<int64_t>() + 1)) {
        const std::vector<int32_t> list(theirs, std::find(theirs, theirs + size(), -1));
        const std::string text = name(rank_) + " asked for the subgroup {" + to_string(ranks) + "} and " + name(rank) +
                                 " for {" + to_string(list) + "} in " + label;
        MpiRuntime::instance().abort(text);
        throw Error(ErrorCode::kCommError, label + ": " + text);
      }
      members.push_back(members_[rank]);
    }
    const std::string of_whom = " of ranks " + to_string(members);
    return std::make_shared<MpiGroup>(membership_, std::move(members), group, of_whom);
  }

  void abort(const std::string& reason) noexcept override {
    try {
      MpiRuntime::instance().abort(reason);
    } catch (const std::bad_alloc&) {
      std::terminate();  // without memory for a sentence no rank can be told; mpirun ends the others
    }
  }

  int64_t elements_sent() const override { return *elements_sent_; }

 private:
  std::string name(int32_t rank) const {
    return "rank " + std::to_string(members_[rank]) + " of " + std::to_string(MpiRuntime::instance().size());
  }

  MpiPeer peer(int32_t other, const at::Tensor& send, const at::Tensor& receive) const {
    return {members_[other], data_of(send), mutable_data_of(receive), extent_of(send), extent_of(receive)};
  }

  // `meets_all`: with ranks, too, that nothing is exchanged with.
  std::shared_ptr<MpiOperation> exchange_operation(const std::string& name, std::vector<at::Tensor> send,
                                                   std::vector<at::Tensor> receive, bool meets_all) const {
    std::vector<MpiPeer> peers;
    for (int32_t other = 0; other < size(); ++other) {
      const MpiPeer one = peer(other, send[other], receive[other]);
      if (other != rank_ && (meets_all || one.sends.elements > 0 || one.receives.elements > 0)) peers.push_back(one);
    }
    auto operation = std::make_shared<MpiOperation>();
    operation->call.name = name;
    operation->phases.push_back([peers = std::move(peers), from = send[rank_], to = receive[rank_]] {
      if (to.defined() && to.numel() > 0) std::memmove(to.mutable_data_ptr(), from.const_data_ptr(), to.nbytes());
      return peers;
    });
    operation->tensors = std::move(send);
    operation->tensors.insert(operation->tensors.end(), receive.begin(), receive.end());
    return operation;
  }

  std::string start_labelled(const std::shared_ptr<MpiOperation>& operation) {
    operation->call.number = ++calls_;
    operation->call.of_whom = of_whom_;
    operation->tag = tag_;
    MpiRuntime::instance().submit(operation);
    return operation->call.label();
  }

  std::unique_ptr<Work> start(std::shared_ptr<MpiOperation> operation) {
    start_labelled(operation);
    return std::make_unique<MpiWork>(std::move(operation));
  }

  std::shared_ptr<Membership> membership_;
  std::vector<int32_t> members_;  // ranks in MPI_COMM_WORLD, ascending
  int tag_;
  std::string of_whom_;
  int32_t rank_ = 0;
  int64_t calls_ = 0;
  std::shared_ptr<std::atomic<int64_t>> elements_sent_ = std::make_shared<std::atomic<int64_t>>(0);
};

class MpiGroupFactory final : public CpGroupFactory {
 public:
  std::string id() const override { return "mpi"; }
  std::string description() const override {
    return "ranks as processes under mpirun or srun, CPU tensors over OpenMPI";
  }
  std::shared_ptr<CpGroup> connect(const CpGroupOptions& options) const override {
    check_options(options);
    MpiRuntime& runtime = MpiRuntime::instance();
    runtime.connect(options);
    std::vector<int32_t> everybody(runtime.size());
    std::iota(everybody.begin(), everybody.end(), 0);
    auto membership = std::make_shared<Membership>();
    const int64_t group = membership->next_group++;
    return std::make_shared<MpiGroup>(std::move(membership), std::move(everybody), group, "");
  }
};

}  // namespace

std::shared_ptr<const CpGroupFactory> make_mpi_group_factory() { return std::make_shared<MpiGroupFactory>(); }

void shutdown_mpi() noexcept { MpiRuntime::instance().shutdown(); }

}  // namespace attnmux
