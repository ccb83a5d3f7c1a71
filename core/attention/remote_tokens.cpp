#include "remote_tokens.h"

#include <ATen/ATen.h>

namespace attnmux {

at::Tensor pack(const KeysAndValues& tokens, at::ScalarType dtype) {
  return at::cat({tokens.k.flatten(1), tokens.v.flatten(1)}, 1).to(dtype);
}

KeysAndValues unpack(const at::Tensor& packed, const KeysAndValues& like) {
  const int64_t heads = like.k.size(1), k_width = heads * like.k.size(2), v_width = heads * like.v.size(2);
  return {packed.narrow(1, 0, k_width).unflatten(1, {heads, like.k.size(2)}),
          packed.narrow(1, k_width, v_width).unflatten(1, {heads, like.v.size(2)})};
}

RemoteKeys::RemoteKeys(CpGroup& group, const std::vector<StagePlan>& stages, const KeysAndValues& own)
    : group_(group), stages_(stages), own_(own) {
  if (!stages_.empty()) packed_ = pack(own_, own_.k.scalar_type());
  start();
}

void RemoteKeys::start() {
  if (started_ == stages_.size()) return;
  under_way_ = group_cast(group_, stages_[started_].cast, packed_);
  ++started_;
}

KeysAndValues RemoteKeys::next() {
  const at::Tensor arrived = under_way_->wait();
  under_way_.reset();
  start();
  return unpack(arrived, own_);
}

void RemoteGradients::send(const GroupCastArgs& args, const at::Tensor& packed) {
  GroupReduceResult started = group_reduce(group_, args, packed);
  receive();  // of the part before
  under_way_ = std::move(started);
}

void RemoteGradients::receive() {
  if (under_way_) under_way_->wait_and_add(sum_);
  under_way_.reset();
}

at::Tensor RemoteGradients::finish() {
  receive();
  return sum_;
}

}  // namespace attnmux
