// What every transport must do, as cases that each rank of a group runs: by threads_group_test on threads of one
// process, by mpi_group_test on processes under mpirun. A case throws where something is wrong.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "attnmux/cp_group.h"
#include "attnmux/group_cast.h"
#include "cast_case.h"

namespace attnmux::testing {

inline void require(bool condition, const std::string& text) {
  if (!condition) throw std::runtime_error(text);
}

inline void require_same(const at::Tensor& got, const at::Tensor& want, const std::string& what) {
  require(got.sizes() == want.sizes() && got.scalar_type() == want.scalar_type(), what + ": another shape or dtype");
  const at::Tensor g = got.contiguous();
  const at::Tensor w = want.contiguous();
  if (g.numel() == 0 || std::memcmp(g.const_data_ptr(), w.const_data_ptr(), g.nbytes()) == 0) return;
  const at::Tensor wrong = (g != w).flatten().nonzero().flatten();
  const int64_t first = wrong.numel() > 0 ? wrong[0].item<int64_t>() : -1;
  throw std::runtime_error(what + ": " + std::to_string(wrong.numel()) + " of " + std::to_string(g.numel()) +
                           " values differ, first at " + std::to_string(first));
}

inline const std::vector<at::ScalarType>& dtypes() {
  static const std::vector<at::ScalarType> all{at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kInt, at::kLong};
  return all;
}

// What `from` sends to `to`: known to both.
inline at::Tensor message(int32_t from, int32_t to, int64_t elements, at::ScalarType dtype, int64_t round = 0) {
  return (at::arange(elements, at::kLong) % 97 + 7 * from + 3 * to + round % 5).to(dtype);
}

inline void exchange_all_dtypes(CpGroup& group) {
  for (const at::ScalarType dtype : dtypes()) {
    std::vector<at::Tensor> send, receive;
    for (int32_t other = 0; other < group.size(); ++other) {  // sizes differ by pair and direction, some are empty
      const int64_t out = (group.rank() * 5 + other * 3) % 4 * 33;
      const int64_t in = (other * 5 + group.rank() * 3) % 4 * 33;
      send.push_back(out == 0 ? at::Tensor() : message(group.rank(), other, out, dtype));
      receive.push_back(at::zeros({in}, dtype));
    }
    group.exchange(send, receive)->wait();
    for (int32_t other = 0; other < group.size(); ++other) {
      require_same(receive[other], message(other, group.rank(), receive[other].numel(), dtype),
                   "from rank " + std::to_string(other));
    }
  }
}

// Works that are under way together, waited for in any order; some are never waited for.
inline void many_at_once(CpGroup& group) {
  constexpr int64_t kRounds = 60;
  std::mt19937 random(group.rank());
  struct Pending {
    std::vector<at::Tensor> receive;
    std::unique_ptr<Work> work;
    int64_t round;
  };
  std::vector<Pending> pending;
  const auto finish = [&](size_t index, bool wait) {
    Pending one = std::move(pending[index]);
    pending.erase(pending.begin() + static_cast<int64_t>(index));
    if (wait) {
      one.work->wait();
    } else {
      one.work.reset();
    }
    for (int32_t other = 0; other < group.size(); ++other) {
      require_same(one.receive[other],
                   message(other, group.rank(), one.receive[other].numel(), at::kBFloat16, one.round),
                   "round " + std::to_string(one.round) + " from rank " + std::to_string(other));
    }
  };
  for (int64_t round = 0; round < kRounds; ++round) {
    Pending one{{}, nullptr, round};
    std::vector<at::Tensor> send;
    for (int32_t other = 0; other < group.size(); ++other) {
      const int64_t elements = (round * 13 + group.rank() + other) % 7 * 50;  // the same both ways
      send.push_back(message(group.rank(), other, elements, at::kBFloat16, round));
      one.receive.push_back(at::empty({elements}, at::kBFloat16));
    }
    one.work = group.exchange(std::move(send), one.receive);
    pending.push_back(std::move(one));
    if (pending.size() == 5) finish(random() % pending.size(), random() % 4 != 0);
  }
  while (!pending.empty()) finish(pending.size() - 1, true);
}

inline void all_reduce_same_bits(CpGroup& group) {
  for (const at::ScalarType dtype : dtypes()) {
    for (const int64_t elements : {int64_t{0}, int64_t{1}, int64_t{3}, int64_t{5000}}) {
      for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
        // Values whose sum depends on the order in which they are added.
        const auto of_rank = [&](int32_t rank) {
          const at::Tensor base = at::sin(at::arange(elements, at::kDouble) * (rank + 1) + rank);
          return (base * (c10::isIntegralType(dtype, false) ? 1000.0 : rank % 2 == 0 ? 1e4 : 1e-3)).to(dtype);
        };
        const at::ScalarType sum_dtype = dtype == at::kBFloat16 || dtype == at::kHalf ? at::kFloat : dtype;
        at::Tensor expected = of_rank(0).to(sum_dtype);
        for (int32_t rank = 1; rank < group.size(); ++rank) {
          const at::Tensor theirs = of_rank(rank).to(sum_dtype);
          expected = op == ReduceOp::kSum ? expected + theirs : at::maximum(expected, theirs);
        }
        at::Tensor values = of_rank(group.rank());
        group.all_reduce(values, op)->wait();
        require_same(values, expected.to(dtype), std::string("all_reduce of ") + c10::toString(dtype));
      }
    }
  }
  at::Tensor loss = at::full({2}, group.rank() == group.size() - 1 ? NAN : 1.0, at::kFloat);
  group.all_reduce(loss, ReduceOp::kMax)->wait();
  require(at::isnan(loss).all().item<bool>(), "a NaN is lost in a maximum");
}

inline void all_gather_ranks(CpGroup& group) {
  const at::Tensor mine = message(group.rank(), 0, 12, at::kHalf).view({3, 4});
  const at::Tensor all = at::zeros({group.size(), 3, 4}, at::kHalf);
  group.all_gather(mine, all)->wait();
  for (int32_t rank = 0; rank < group.size(); ++rank) {
    require_same(all[rank], message(rank, 0, 12, at::kHalf).view({3, 4}), "gathered");
  }
  at::Tensor one = at::zeros({group.size()}, at::kLong);
  group.all_gather(at::full({}, group.rank(), at::kLong), one)->wait();
  require_same(one, at::arange(group.size(), at::kLong), "gathered scalars");
}

// A mesh: rows of neighbours, columns across them; both groups and their parent are used in turns.
inline void subgroups(CpGroup& group) {
  const int32_t width = group.size() % 2 == 0 ? group.size() / 2 : group.size();
  std::vector<int32_t> row, column;
  for (int32_t rank = 0; rank < group.size(); ++rank) {
    if (rank / width == group.rank() / width) row.push_back(rank);
    if (rank % width == group.rank() % width) column.push_back(rank);
  }
  const std::shared_ptr<CpGroup> in_row = group.subgroup(row);
  const std::shared_ptr<CpGroup> in_column = group.subgroup(column);
  require(in_row->size() == static_cast<int32_t>(row.size()), "size of a subgroup");
  require(row[in_row->rank()] == group.rank() && column[in_column->rank()] == group.rank(), "rank in a subgroup");
  require(in_row->kind() == group.kind(), "kind of a subgroup");
  for (int64_t round = 0; round < 10; ++round) {
    at::Tensor rows = at::full({1}, group.rank(), at::kLong);
    at::Tensor columns = at::full({1}, group.rank(), at::kLong);
    const std::unique_ptr<Work> first = in_row->all_reduce(rows, ReduceOp::kSum);
    const std::unique_ptr<Work> second = in_column->all_reduce(columns, ReduceOp::kMax);
    group.barrier();
    second->wait();
    first->wait();
    int64_t sum = 0;
    for (const int32_t rank : row) sum += rank;
    require(rows.item<int64_t>() == sum, "sum over a row");
    require(columns.item<int64_t>() == column.back(), "maximum over a column");
    exchange_all_dtypes(*in_row);
  }
  const std::shared_ptr<CpGroup> nested = in_row->subgroup({in_row->rank()});
  nested->barrier();
  require(nested->size() == 1, "a group of one");
}

// Random casts and the way back, against what the global picture says. Nothing is sent twice.
inline void casts(CpGroup& group) {
  for (uint32_t seed = 0; seed < 25; ++seed) {
    const CastCase cast = random_cast(seed, group.size());
    const int32_t me = group.rank();
    const int64_t width = seed % 3 + 1;
    const int64_t before = group.elements_sent();
    GroupCastResult arriving = group_cast(group, cast.args[me], tokens_of_ids(cast.send[me], width, at::kFloat));
    const at::Tensor received = arriving.wait();
    require_same(received, tokens_of_ids(cast.receive[me], width, at::kFloat), "cast " + std::to_string(seed));
    require(group.elements_sent() - before == cast.sent_to_others(me) * width, "elements that were really sent");

    at::Tensor sum = at::zeros({static_cast<int64_t>(cast.send[me].size()), width}, at::kDouble);
    group_reduce(group, cast.args[me], received.to(at::kDouble) * (me + 1)).wait_and_add(sum);
    require_same(sum, cast.reduced(me, width), "reduce " + std::to_string(seed));
  }
}

struct TransportCase {
  std::string name;
  std::function<void(CpGroup& group)> run;
};

inline std::vector<TransportCase> transport_cases() {
  return {{"exchange_all_dtypes", exchange_all_dtypes},
          {"many_at_once", many_at_once},
          {"all_reduce_same_bits", all_reduce_same_bits},
          {"all_gather_ranks", all_gather_ranks},
          {"subgroups", subgroups},
          {"casts", casts}};
}

}  // namespace attnmux::testing
