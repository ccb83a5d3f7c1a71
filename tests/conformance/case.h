// One conformance case as a readable string that reproduces itself.
//
//   Case c = parse_case("fwd/mask=causal,sq=257,sk=513,hq=8,hk=2,d=128,dt=bf16,seed=7");
//   to_string(c);   // the same text
//
// Everything that a case needs follows from its string: the mask's shape, the tensors and what is asked of them. Plain
// values, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnmux/request.h"

namespace attnmux::conformance {

enum class Family : uint8_t {
  kMeta,         // the file and the plugin's entry
  kQuery,        // the capability query alone
  kForward,      // out
  kBackward,     // dq, dk, dv
  kLse,          // lse
  kEmptyRows,    // queries that attend nothing
  kGqa,          // query heads that share key/value heads
  kStrides,      // inputs that are not contiguous
  kDtype,        // pairs of dtype and head_dim, claimed and unclaimed
  kHonesty,      // random requests: claimed runs and is right, declined refuses
  kDeterminism,  // the same bits again
  kStreams,      // a stream of the caller's (GPU)
  kConcurrency,  // several threads at once
  kMemory,       // growth and leaks
  kErrors,       // odd calls, and calls after a refusal
  kCp,           // the backend inside distributed attention
  // Of a group of ranks instead of a backend.
  kGroup,   // what arrives, sums, subgroups, arguments
  kFaults,  // a rank that fails: all others learn of it
};
std::string_view to_string(Family family);  // "fwd"
const std::vector<Family>& all_families();
bool is_of_groups(Family family);
Family parse_family(std::string_view text);  // throws Error(kUsage) with the nearest spelling

struct Case {
  Family family = Family::kForward;
  std::string check;          // what is asked beyond the family's main question; empty: that question
  std::string mask = "full";  // a kind of mask, see case_mask.h
  int64_t sq = 64, sk = 64;   // queries, keys
  int64_t hq = 2, hk = 2;     // heads of q, of k and v
  int64_t d = 64;             // head_dim of q and k
  int64_t dv = 0;             // of v; 0: as d
  DType dt = DType::kFloat32;
  std::string values = "randn";  // what the tensors hold, see values.h
  int64_t cp = 1;                // ranks, of families cp, group and faults
  int64_t chunk = 16;            // of family cp: tokens of a chunk
  int64_t stages = 1;            // of family cp: exchanges that remote tokens are spread over
  uint64_t seed = 7;

  int64_t head_dim_v() const { return dv == 0 ? d : dv; }
  friend bool operator==(const Case&, const Case&) = default;
};

// Meta and query cases are "meta/check=exports", those of groups "group/check=casts,cp=3"; all others name every size.
std::string to_string(const Case& c);

// Keys in any order, each at most once; a missing one keeps its default, missing sq and sk follow from a mask that
// lists lengths. Throws Error(kUsage) naming family, key or value at fault and what is allowed.
Case parse_case(std::string_view text);

DType parse_dtype(std::string_view text);

}  // namespace attnmux::conformance
