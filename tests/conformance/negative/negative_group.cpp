// Group "mpi" as it is, were it not for its one defect (group_defects.h).
#include <ATen/ATen.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <thread>

#include "attnmux/error.h"
#include "attnmux/plugin.h"
#include "cp_mpi/mpi_group.h"
#include "group_defects.h"

namespace attnmux::negative {
namespace {

bool is(GroupDefect defect) { return kGroupDefect == defect; }

// What has been done already, or is claimed to be.
class Done final : public Work {
 public:
  void wait() override {}
};

class WrongWork final : public Work {
 public:
  WrongWork(std::unique_ptr<Work> inner, std::function<void(const std::function<void()>& call)> guarded,
            std::function<void()> behind)
      : inner_(std::move(inner)), guarded_(std::move(guarded)), behind_(std::move(behind)) {}
  void wait() override {
    if (is(GroupDefect::kCompletesEarly)) return;
    guarded_([&] { inner_->wait(); });
    if (behind_) behind_();
  }

 private:
  std::unique_ptr<Work> inner_;
  std::function<void(const std::function<void()>& call)> guarded_;
  std::function<void()> behind_;
};

int64_t elements_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.numel() : 0; }

int64_t elements_of(const std::vector<at::Tensor>& tensors) {
  int64_t sum = 0;
  for (const at::Tensor& tensor : tensors) sum += elements_of(tensor);
  return sum;
}

// Lines such as a rank would send, to whoever listens.
void send_fake_records() {
  const char line[] =
      "{\"rank\":0,\"end\":0,\"record\":\"{\\\"status\\\":\\\"PASS\\\"}\"}\n{\"rank\":0,\"done\":true}\n";
  for (int descriptor = 1; descriptor < 64; ++descriptor) {
    if (::write(descriptor, line, sizeof line - 1) < 0) continue;
  }
}

class WrongGroup final : public CpGroup {
 public:
  explicit WrongGroup(std::shared_ptr<CpGroup> inner, std::string kind = "mpi")
      : inner_(std::move(inner)), kind_(std::move(kind)) {}

  std::string kind() const override { return kind_; }
  int32_t rank() const override { return inner_->rank(); }
  int32_t size() const override { return inner_->size(); }

  std::unique_ptr<Work> exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override {
    misbehave(elements_of(send) + elements_of(receive) == 0);
    if (is(GroupDefect::kTakesStrided)) {
      for (std::vector<at::Tensor>* side : {&send, &receive}) {
        for (at::Tensor& tensor : *side) tensor = tensor.defined() ? tensor.contiguous() : tensor;
      }
    }
    if (send.size() == static_cast<size_t>(size())) sent_to_itself_ += elements_of(send[rank()]);
    std::unique_ptr<Work> work;
    guarded([&] { work = inner_->exchange(send, receive); });
    return wrapped(std::move(work), [this, send, receive] { spoil(send, receive); });
  }

  std::unique_ptr<Work> all_reduce(at::Tensor values, ReduceOp op) override {
    const bool wrong = is(GroupDefect::kOverwritesSum) || is(GroupDefect::kSumsFromItself);
    if (wrong && op == ReduceOp::kSum && values.numel() > 0 && values.is_contiguous() &&
        values.scalar_type() != at::kBool) {
      sum_wrongly(values);
      return std::make_unique<Done>();
    }
    std::unique_ptr<Work> work;
    guarded([&] { work = inner_->all_reduce(values, op); });
    return wrapped(std::move(work), nullptr);
  }

  std::unique_ptr<Work> all_gather(at::Tensor mine, at::Tensor all) override {
    std::unique_ptr<Work> work;
    guarded([&] { work = inner_->all_gather(mine, all); });
    return wrapped(std::move(work), nullptr);
  }

  void barrier() override {
    guarded([&] { inner_->barrier(); });
  }

  std::shared_ptr<CpGroup> subgroup(const std::vector<int32_t>& ranks) override {
    std::shared_ptr<CpGroup> part = inner_;
    guarded([&] { part = inner_->subgroup(ranks); });
    return std::make_shared<WrongGroup>(part, is(GroupDefect::kSubgroupOfAnotherKind) ? "other" : kind_);
  }

  void abort(const std::string& reason) noexcept override {
    inner_->abort(is(GroupDefect::kLosesReason) ? "gave up" : reason);
  }

  int64_t elements_sent() const override {
    return inner_->elements_sent() + (is(GroupDefect::kCountsItself) ? sent_to_itself_ : 0);
  }

 private:
  // What comes out of a call that the group failed in.
  void guarded(const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kCommError) throw;
      if (is(GroupDefect::kSwallowsFailure) || (is(GroupDefect::kHeals) && failed_)) return;
      failed_ = true;
      if (!is(GroupDefect::kBlamesAnother)) throw;
      std::string text = error.what();
      for (size_t at; (at = text.find("rank 1")) != std::string::npos;) text.replace(at, 6, "rank 0");
      throw Error(error.code(), text);
    }
  }

  std::unique_ptr<Work> wrapped(std::unique_ptr<Work> work, std::function<void()> behind) {
    if (work == nullptr) return std::make_unique<Done>();
    return std::make_unique<WrongWork>(
        std::move(work), [this](const std::function<void()>& call) { guarded(call); }, std::move(behind));
  }

  void misbehave(bool nothing_to_do) const {
    if (is(GroupDefect::kExitsInExchange)) std::exit(0);
    if (is(GroupDefect::kFakesRecordsOfRank)) {
      send_fake_records();
      ::_exit(0);
    }
    if (is(GroupDefect::kPrintsOnEveryRank)) {
      static const std::string block(1 << 20, 'x');
      static int printed = 0;
      while (printed++ < 32) [[maybe_unused]] const ssize_t ignored = ::write(1, block.data(), block.size());
    }
    if (!nothing_to_do) return;
    if (is(GroupDefect::kRefusesEmpty)) throw Error(ErrorCode::kInvalidArgument, "exchange: there is nothing to do");
    while (is(GroupDefect::kHangsOnEmptyRank)) std::this_thread::sleep_for(std::chrono::hours(1));
  }

  void spoil(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& receive) const {
    const int32_t last = size() - 1;
    if (is(GroupDefect::kDropsShard) && rank() != last && elements_of(receive[last]) > 0) receive[last].zero_();
    if (is(GroupDefect::kMixesSources) && size() > 1 && elements_of(receive[0]) == elements_of(receive[1]) &&
        elements_of(receive[0]) > 0) {
      const at::Tensor first = receive[0].clone();
      receive[0].view({-1}).copy_(receive[1].view({-1}));
      receive[1].view({-1}).copy_(first.view({-1}));
    }
    if (!is(GroupDefect::kWritesWhatItSends)) return;
    for (const at::Tensor& tensor : send) {
      if (tensor.defined()) tensor.zero_();
    }
  }

  void sum_wrongly(const at::Tensor& values) {
    std::vector<int64_t> sizes = values.sizes().vec();
    sizes.insert(sizes.begin(), size());
    const at::Tensor all = at::empty(sizes, values.options());
    inner_->all_gather(values.clone(), all)->wait();
    if (is(GroupDefect::kOverwritesSum)) {
      values.copy_(all[size() - 1]);
      return;
    }
    for (int32_t step = 1; step < size(); ++step) values.add_(all[(rank() + step) % size()]);
  }

  std::shared_ptr<CpGroup> inner_;
  std::string kind_;
  int64_t sent_to_itself_ = 0;
  bool failed_ = false;
};

class WrongFactory final : public CpGroupFactory {
 public:
  std::string id() const override { return "negative"; }
  std::string description() const override { return "wrong on purpose"; }
  std::shared_ptr<CpGroup> connect(const CpGroupOptions& given) const override {
    if (is(GroupDefect::kEveryoneAlone)) return single_rank_group();
    CpGroupOptions options = given;
    if (is(GroupDefect::kIgnoresDeadline)) options.deadline = std::chrono::hours(1);
    return std::make_shared<WrongGroup>(mpi_->connect(options));
  }

 private:
  std::shared_ptr<const CpGroupFactory> mpi_ = make_mpi_group_factory();
};

void register_wrong_group(const HostApi&, Registrar& registrar) {
  registrar.add_cp_group(std::make_shared<WrongFactory>());
}

}  // namespace
}  // namespace attnmux::negative

ATTNMUX_PLUGIN("negative_group", "1", "attnmux tests", attnmux::negative::register_wrong_group, attnmux::shutdown_mpi)
