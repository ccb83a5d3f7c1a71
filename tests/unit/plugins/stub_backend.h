// A backend that declines everything and a group that connects nobody: the plugin tests are about loading.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "attnmux/error.h"
#include "attnmux/plugin.h"

namespace attnmux {

class StubBackend final : public AttentionBackend {
 public:
  explicit StubBackend(std::string id) : id_(std::move(id)) {}

  BackendInfo info() const override { return {id_, "1.2.3", "declines everything"}; }

  Support query(const AttentionRequest& request) const noexcept override {
    return {{{ReasonCode::kMaskType, "any", "none", "choose another backend"}}};
  }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec&, const AttentionShape&) const override {
    throw Error(ErrorCode::kUnsupported, "a stub");
  }
  ForwardResult forward(const Prepared&, const ForwardArgs&) const override {
    throw Error(ErrorCode::kUnsupported, "a stub");
  }
  BackwardResult backward(const Prepared&, const BackwardArgs&) const override {
    throw Error(ErrorCode::kUnsupported, "a stub");
  }

 private:
  std::string id_;
};

class StubGroup final : public CpGroupFactory {
 public:
  explicit StubGroup(std::string id) : id_(std::move(id)) {}
  std::string id() const override { return id_; }
  std::string description() const override { return "connects nobody"; }
  std::shared_ptr<CpGroup> connect(const CpGroupOptions&) const override { throw Error(ErrorCode::kUsage, "a stub"); }

 private:
  std::string id_;
};

}  // namespace attnmux
