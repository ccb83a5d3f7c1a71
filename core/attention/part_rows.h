// A rank's rows of which a part of an attention call makes some: taken out for the part, and written back.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "attnmux/mask.h"

namespace attnmux {

class PartRows {
 public:
  PartRows() = default;  // none of none
  // rows: sorted, of [0, total). A single range is a view of the whole, at no cost; several are copied, so each tensor
  // operation is one over all of them, however many ranges there are.
  PartRows(const std::vector<Range>& rows, int64_t total, at::Device device) : total_(total) {
    if (rows.size() < 2) {
      if (!rows.empty()) range_ = rows.front();
      return;
    }
    std::vector<at::Tensor> runs;
    for (const Range& range : rows) runs.push_back(at::arange(range.begin, range.end, at::kLong));
    index_ = at::cat(runs).to(device);
  }

  bool all() const { return range_.size() == total_; }

  // whole [total, ...] -> [rows, ...]
  at::Tensor of(const at::Tensor& whole) const {
    return index_.defined() ? whole.index_select(0, index_) : whole.narrow(0, range_.begin, range_.size());
  }

  // change(part [rows, ...]) works in place; what it leaves is in `whole`.
  template <class Change>
  void change(const at::Tensor& whole, const Change& change) const {
    const at::Tensor part = of(whole);
    change(part);
    if (index_.defined()) whole.index_copy_(0, index_, part);
  }

 private:
  int64_t total_ = 0;
  Range range_;
  at::Tensor index_;  // defined: of several ranges
};

}  // namespace attnmux
