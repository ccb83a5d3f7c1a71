// A group cast as a whole: every rank's arguments, the ids of the tokens that it has and of those that it must get.
#pragma once

#include <ATen/ATen.h>

#include <deque>
#include <random>
#include <vector>

#include "attnmux/group_cast.h"

namespace attnmux::testing {

struct CastCase {
  std::vector<GroupCastArgs> args;            // [ranks]
  std::vector<std::vector<int64_t>> send;     // [ranks] ids of own tokens, distinct over all ranks
  std::vector<std::vector<int64_t>> receive;  // [ranks] ids of tokens that must arrive

  int64_t sent_to_others(int32_t rank) const {
    int64_t tokens = 0;
    for (size_t piece = 0; piece < args[rank].dst.size(); ++piece) {
      for (const int32_t to : args[rank].dst[piece]) tokens += to == rank ? 0 : args[rank].input_splits[piece];
    }
    return tokens;
  }

  // What comes back to a rank when each rank sends back (id + column) * (its rank + 1) for the tokens it received.
  at::Tensor reduced(int32_t rank, int64_t width) const {
    at::Tensor sum = at::zeros({static_cast<int64_t>(send[rank].size()), width}, at::kDouble);
    for (size_t token = 0; token < send[rank].size(); ++token) {
      for (size_t from = 0; from < receive.size(); ++from) {
        for (const int64_t id : receive[from]) {
          if (id != send[rank][token]) continue;
          for (int64_t column = 0; column < width; ++column) {
            sum[token][column] += static_cast<double>(id + column) * static_cast<double>(from + 1);
          }
        }
      }
    }
    return sum;
  }
};

inline at::Tensor tokens_of_ids(const std::vector<int64_t>& ids, int64_t width, at::ScalarType dtype) {
  const at::Tensor column = at::tensor(ids, at::kLong).unsqueeze(1);
  return (column + at::arange(width, at::kLong)).to(dtype);
}

// Pieces of any length, empty ones too, to any ranks, the sender among them; ranks without tokens. Between two ranks
// pieces keep their order, otherwise they arrive mixed.
inline CastCase random_cast(uint32_t seed, int32_t size) {
  std::mt19937 random(seed);
  CastCase cast{std::vector<GroupCastArgs>(size), std::vector<std::vector<int64_t>>(size),
                std::vector<std::vector<int64_t>>(size)};
  std::vector<std::vector<std::deque<std::vector<int64_t>>>> routes(  // [to][from] pieces
      size, std::vector<std::deque<std::vector<int64_t>>>(size));
  int64_t next_id = 0;
  for (int32_t from = 0; from < size; ++from) {
    const int pieces = static_cast<int>(random() % 6);
    for (int piece = 0; piece < pieces; ++piece) {
      std::vector<int64_t> ids(random() % 5);
      for (int64_t& id : ids) id = next_id++;
      cast.send[from].insert(cast.send[from].end(), ids.begin(), ids.end());
      std::vector<int32_t> to;
      for (int32_t rank = 0; rank < size; ++rank) {
        if (random() % 3 == 0) to.push_back(rank);
      }
      for (const int32_t rank : to) routes[rank][from].push_back(ids);
      cast.args[from].input_splits.push_back(static_cast<int64_t>(ids.size()));
      cast.args[from].dst.push_back(to);
    }
  }
  for (int32_t to = 0; to < size; ++to) {
    while (true) {
      std::vector<int32_t> waiting;
      for (int32_t from = 0; from < size; ++from) {
        if (!routes[to][from].empty()) waiting.push_back(from);
      }
      if (waiting.empty()) break;
      const int32_t from = waiting[random() % waiting.size()];
      const std::vector<int64_t> ids = routes[to][from].front();
      routes[to][from].pop_front();
      cast.args[to].output_splits.push_back(static_cast<int64_t>(ids.size()));
      cast.args[to].src.push_back(from);
      cast.receive[to].insert(cast.receive[to].end(), ids.begin(), ids.end());
    }
  }
  return cast;
}

}  // namespace attnmux::testing
