// A group that a test can break: it tells of every call's start and end before it passes the call on.
//
//   FaultyGroup faulty(group, [&](const std::string& point) { if (++points == 7) throw Error(...); });
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attnmux/cp_group.h"

namespace attnmux::testing {

using FaultPoint = std::function<void(const std::string& point)>;  // "exchange", "wait for exchange"

class FaultyWork final : public Work {
 public:
  FaultyWork(std::unique_ptr<Work> work, FaultPoint point, std::string name)
      : work_(std::move(work)), point_(std::move(point)), name_(std::move(name)) {}
  void wait() override {
    point_("wait for " + name_);
    work_->wait();
  }

 private:
  std::unique_ptr<Work> work_;
  FaultPoint point_;
  std::string name_;
};

class FaultyGroup final : public CpGroup {
 public:
  FaultyGroup(CpGroup& group, FaultPoint point) : group_(&group), point_(std::move(point)) {}
  FaultyGroup(std::shared_ptr<CpGroup> group, FaultPoint point)
      : owned_(std::move(group)), group_(owned_.get()), point_(std::move(point)) {}

  std::string kind() const override { return group_->kind(); }
  int32_t rank() const override { return group_->rank(); }
  int32_t size() const override { return group_->size(); }
  std::unique_ptr<Work> exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override {
    return started("exchange", [&] { return group_->exchange(std::move(send), std::move(receive)); });
  }
  std::unique_ptr<Work> all_reduce(at::Tensor values, ReduceOp op) override {
    return started("all_reduce", [&] { return group_->all_reduce(std::move(values), op); });
  }
  std::unique_ptr<Work> all_gather(at::Tensor mine, at::Tensor all) override {
    return started("all_gather", [&] { return group_->all_gather(std::move(mine), std::move(all)); });
  }
  void barrier() override {
    point_("barrier");
    group_->barrier();
  }
  std::shared_ptr<CpGroup> subgroup(const std::vector<int32_t>& ranks) override {
    return std::make_shared<FaultyGroup>(group_->subgroup(ranks), point_);
  }
  void abort(const std::string& reason) noexcept override { group_->abort(reason); }
  int64_t elements_sent() const override { return group_->elements_sent(); }

 private:
  template <class Start>
  std::unique_ptr<Work> started(const std::string& name, const Start& start) {
    point_(name);
    return std::make_unique<FaultyWork>(start(), point_, name);
  }

  std::shared_ptr<CpGroup> owned_;
  CpGroup* group_;
  FaultPoint point_;
};

}  // namespace attnmux::testing
