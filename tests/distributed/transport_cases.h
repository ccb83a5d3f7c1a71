// What every transport must do, as cases that each rank of a group runs: by threads_group_test on threads of one
// process, by mpi_group_test on processes under mpirun, by the conformance suite on either. A case throws BrokenPromise
// where something is wrong.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "attnmux/cp_group.h"
#include "attnmux/error.h"
#include "attnmux/group_cast.h"
#include "cast_case.h"

namespace attnmux::testing {

enum class Promise {
  kIdentity,   // rank, size and kind, of subgroups too
  kBytes,      // what arrives is what was sent, once wait() has returned
  kInputs,     // what is sent is not written
  kSum,        // reduced in the order of ranks: the same bits on each
  kCount,      // elements_sent() counts what was really sent to others
  kArguments,  // what cannot be sent is refused with Error(kInvalidArgument), before anything is sent
};

struct BrokenPromise : std::runtime_error {
  BrokenPromise(Promise which, const std::string& text) : std::runtime_error(text), promise(which) {}
  Promise promise;
};

// Which promises are looked at: all of them, but where a test shows that each is needed.
inline bool (*is_asked)(Promise promise) = [](Promise) { return true; };

inline void require(bool condition, Promise promise, const std::string& text) {
  if (!condition && is_asked(promise)) throw BrokenPromise(promise, text);
}

inline void require_same(const at::Tensor& got, const at::Tensor& want, const std::string& what,
                         Promise promise = Promise::kBytes) {
  const bool alike = got.sizes() == want.sizes() && got.scalar_type() == want.scalar_type();
  require(alike, promise, what + ": another shape or dtype");
  if (!alike) return;
  const at::Tensor g = got.contiguous();
  const at::Tensor w = want.contiguous();
  if (g.numel() == 0 || std::memcmp(g.const_data_ptr(), w.const_data_ptr(), g.nbytes()) == 0) return;
  const at::Tensor wrong = (g != w).flatten().nonzero().flatten();
  const int64_t first = wrong.numel() > 0 ? wrong[0].item<int64_t>() : -1;
  require(false, promise,
          what + ": " + std::to_string(wrong.numel()) + " of " + std::to_string(g.numel()) +
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
      if (!send[other].defined()) continue;
      require_same(send[other], message(group.rank(), other, send[other].numel(), dtype),
                   "what was sent to rank " + std::to_string(other), Promise::kInputs);
    }
  }
}

// One rank has nothing to send and nothing to receive, as a rank without work in a stage; then none has.
inline void ranks_without_tokens(CpGroup& group) {
  for (int32_t idle = 0; idle <= group.size(); ++idle) {
    std::vector<at::Tensor> send(group.size()), receive(group.size());
    for (int32_t other = 0; other < group.size(); ++other) {
      if (idle == group.size() || group.rank() == idle || other == idle) continue;
      send[other] = message(group.rank(), other, 40, at::kHalf);
      receive[other] = at::zeros({40}, at::kHalf);
    }
    group.exchange(send, receive)->wait();
    for (int32_t other = 0; other < group.size(); ++other) {
      if (!receive[other].defined()) continue;
      require_same(receive[other], message(other, group.rank(), 40, at::kHalf), "from rank " + std::to_string(other));
    }
  }
  at::Tensor nothing = at::empty({0});
  group.all_reduce(nothing, ReduceOp::kSum)->wait();
}

// A rank comes late: what wait() returns from has arrived all the same.
inline void a_late_sender(CpGroup& group) {
  constexpr int64_t kElements = 30'000;
  for (int32_t late = 0; late < group.size(); ++late) {
    group.barrier();
    if (group.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(30));
    std::vector<at::Tensor> send, receive;
    for (int32_t other = 0; other < group.size(); ++other) {
      send.push_back(message(group.rank(), other, kElements, at::kInt, late));
      receive.push_back(at::zeros({kElements}, at::kInt));
    }
    const std::unique_ptr<Work> work = group.exchange(std::move(send), receive);
    work->wait();
    for (int32_t other = 0; other < group.size(); ++other) {
      require_same(receive[other], message(other, group.rank(), kElements, at::kInt, late),
                   "from rank " + std::to_string(other) + ", rank " + std::to_string(late) + " is late");
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
        require_same(values, expected.to(dtype), std::string("all_reduce of ") + c10::toString(dtype), Promise::kSum);
      }
    }
  }
  at::Tensor loss = at::full({2}, group.rank() == group.size() - 1 ? NAN : 1.0, at::kFloat);
  group.all_reduce(loss, ReduceOp::kMax)->wait();
  require(at::isnan(loss).all().item<bool>(), Promise::kSum, "a NaN is lost in a maximum");
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
  const auto is = [&](const CpGroup& part, const std::vector<int32_t>& ranks) {
    require(part.size() == static_cast<int32_t>(ranks.size()), Promise::kIdentity, "size of a subgroup");
    require(part.rank() >= 0 && part.rank() < part.size() && ranks[part.rank()] == group.rank(), Promise::kIdentity,
            "rank in a subgroup");
    require(part.kind() == group.kind(), Promise::kIdentity, "kind of a subgroup");
  };
  is(*in_row, row);
  is(*in_column, column);
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
    require(rows.item<int64_t>() == sum, Promise::kSum, "sum over a row");
    require(columns.item<int64_t>() == column.back(), Promise::kSum, "maximum over a column");
    exchange_all_dtypes(*in_row);
  }
  const std::shared_ptr<CpGroup> nested = in_row->subgroup({in_row->rank()});
  nested->barrier();
  is(*nested, {group.rank()});
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
    require(group.elements_sent() - before == cast.sent_to_others(me) * width, Promise::kCount,
            "elements that were really sent");

    at::Tensor sum = at::zeros({static_cast<int64_t>(cast.send[me].size()), width}, at::kDouble);
    group_reduce(group, cast.args[me], received.to(at::kDouble) * (me + 1)).wait_and_add(sum);
    require_same(sum, cast.reduced(me, width), "reduce " + std::to_string(seed));
  }
}

// Each is refused where it is made, on every rank alike; the group works on.
inline void wrong_arguments(CpGroup& group) {
  const int32_t size = group.size();
  const at::Tensor apart = at::zeros({4, 2}).select(1, 0);  // not contiguous
  const auto for_all = [&](const at::Tensor& tensor) { return std::vector<at::Tensor>(size, tensor); };
  const auto refused = [&](const std::string& what, const std::function<void()>& call) {
    const int64_t before = group.elements_sent();
    try {
      call();
    } catch (const Error& error) {
      require(error.code() == ErrorCode::kInvalidArgument, Promise::kArguments,
              what + " is refused as " + std::string(to_string(error.code())) + ", not as InvalidArgument");
      require(group.elements_sent() == before, Promise::kArguments, what + " was sent before it was refused");
      return;
    }
    require(false, Promise::kArguments, what + " is taken");
  };
  refused("a tensor too many",
          [&] { group.exchange(std::vector<at::Tensor>(size + 1), std::vector<at::Tensor>(size))->wait(); });
  refused("a strided tensor to send", [&] { group.exchange(for_all(apart), for_all(at::zeros({4})))->wait(); });
  refused("a strided tensor to receive", [&] { group.exchange(for_all(at::zeros({4})), for_all(apart))->wait(); });
  refused("another length to itself", [&] {
    std::vector<at::Tensor> send(size), receive(size);
    send[group.rank()] = at::zeros({3});
    receive[group.rank()] = at::zeros({4});
    group.exchange(send, receive)->wait();
  });
  refused("a strided tensor to reduce", [&] { group.all_reduce(apart, ReduceOp::kSum)->wait(); });
  refused("a dtype that has no sum", [&] { group.all_reduce(at::zeros({4}, at::kBool), ReduceOp::kSum)->wait(); });
  refused("a gathered tensor of another shape", [&] { group.all_gather(at::ones({2}), at::zeros({size, 3}))->wait(); });
  refused("a subgroup without this rank", [&] { group.subgroup({(group.rank() + 1) % (size + 1)}); });
  group.barrier();
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
          {"casts", casts},
          {"ranks_without_tokens", ranks_without_tokens},
          {"a_late_sender", a_late_sender},
          {"wrong_arguments", wrong_arguments}};
}

}  // namespace attnmux::testing
