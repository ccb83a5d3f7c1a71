// The capability query alone: pure, from any thread, with every gate and a reason for every refusal.
#include <algorithm>
#include <set>
#include <thread>

#include "attnmux/device.h"
#include "conformance/families.h"
#include "conformance/random.h"

namespace attnmux::conformance {
namespace {

constexpr MaskFamily kMasks[] = {MaskFamily::kFull,         MaskFamily::kCausal,        MaskFamily::kVarlenFull,
                                 MaskFamily::kVarlenCausal, MaskFamily::kSlidingWindow, MaskFamily::kArbitrary};
constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

AttentionRequest plain_request(const Subject& subject) {
  return {.masks = {MaskFamily::kFull},
          .heads_q = 2,
          .heads_kv = 2,
          .max_tokens = 64,
          .device = subject.device.is_cuda() ? DeviceKind::kCuda : DeviceKind::kCpu,
          .device_arch = device_arch(subject.device)};
}

std::vector<AttentionRequest> random_requests(const Subject& subject, uint64_t seed) {
  constexpr int kCount = 96;
  constexpr int64_t kHeadDims[] = {1, 32, 64, 80, 128, 256, 1000};
  Random random(seed + 41);
  std::vector<AttentionRequest> requests;
  for (int i = 0; i < kCount; ++i) {
    AttentionRequest request = plain_request(subject);
    request.masks = {kMasks[random.below(6)]};
    request.cross_lengths = random.below(2) == 1;
    request.empty_rows = random.below(2) == 1;
    request.dtype = kDTypes[random.below(4)];
    request.heads_kv = 1 + random.below(4);
    request.heads_q = request.heads_kv * (1 + random.below(4));
    request.head_dim = kHeadDims[random.below(7)];
    request.head_dim_v = random.below(3) == 0 ? 32 : 0;
    request.max_tokens = int64_t{1} << random.below(24);
    request.layout = random.below(2) == 1 ? Layout::kBSHD : Layout::kTHD;
    request.training = random.below(2) == 1;
    request.deterministic = random.below(2) == 1;
    request.cp_size = 1 + random.below(2);
    if (random.below(8) == 0) request.softcap = 30;
    if (random.below(8) == 0) request.attention_sink = true;
    if (random.below(8) == 0) request.dropout = 0.1;
    requests.push_back(request);
  }
  return requests;
}

std::string answer(const Subject& subject, const AttentionRequest& request) {
  std::string text;
  for (const Reason& reason : subject.backend->query(request).reasons) text += reason.to_string() + "\n";
  return text.empty() ? "yes" : text;
}

void pure(const Subject& subject, const Case& c, CaseResult& result) {
  constexpr int kRepeats = 24;
  const auto requests = random_requests(subject, c.seed);
  std::vector<std::string> first;
  for (const AttentionRequest& request : requests) first.push_back(answer(subject, request));
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    for (size_t i = 0; i < requests.size(); ++i) {
      // Forwards and backwards, so that the request before is not always the same.
      const size_t at = repeat % 2 == 0 ? i : requests.size() - 1 - i;
      if (const std::string now = answer(subject, requests[at]); now != first[at]) {
        result.fail(Check::kQueryPure, "the same request was answered \"" + first[at] + "\", then \"" + now + "\"");
        return;
      }
    }
  }
}

void from_threads(const Subject& subject, const Case& c, CaseResult& result) {
  constexpr int kThreads = 8;
  const auto requests = random_requests(subject, c.seed);
  std::vector<std::string> here;
  for (const AttentionRequest& request : requests) here.push_back(answer(subject, request));
  std::vector<std::string> wrong(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < requests.size(); ++i) {
        const size_t at = (i + static_cast<size_t>(t) * 11) % requests.size();
        if (const std::string there = answer(subject, requests[at]); there != here[at] && wrong[t].empty()) {
          wrong[t] = "a request was answered \"" + here[at] + "\" here and \"" + there + "\" on another thread";
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : wrong) {
    if (!text.empty()) result.fail(Check::kQueryThreads, text);
  }
}

void reasons(const Subject& subject, const Case& c, CaseResult& result) {
  for (const AttentionRequest& request : random_requests(subject, c.seed)) {
    CaseResult one;
    takes(subject, request, one);
    for (const Failure& failure : one.failures) result.fail(Check::kQueryReasons, failure.text);
  }
}

std::set<std::string> codes(const Subject& subject, const AttentionRequest& request) {
  std::set<std::string> result;
  for (const Reason& reason : subject.backend->query(request).reasons) result.emplace(to_string(reason.code));
  return result;
}

// What is wrong with one request each is wrong with all of it at once.
void all_gates(const Subject& subject, CaseResult& result) {
  using Change = void (*)(AttentionRequest&);
  const Change changes[] = {
      [](AttentionRequest& r) { r.softcap = 30; },
      [](AttentionRequest& r) { r.attention_sink = true; },
      [](AttentionRequest& r) { r.dropout = 0.5; },
      [](AttentionRequest& r) { r.masks = {MaskFamily::kArbitrary}; },
      [](AttentionRequest& r) { r.head_dim = r.head_dim_v = 100'000; },
      [](AttentionRequest& r) { r.max_tokens = int64_t{1} << 40; },
      [](AttentionRequest& r) { r.cp_size = 8; },
      [](AttentionRequest& r) { r.training = true; },
  };
  AttentionRequest all = plain_request(subject);
  std::set<std::string> expected = codes(subject, all);
  for (const Change change : changes) {
    AttentionRequest one = plain_request(subject);
    change(one);
    change(all);
    expected.merge(codes(subject, one));
  }
  const std::set<std::string> got = codes(subject, all);
  for (const std::string& code : expected) {
    if (got.count(code) == 0) {
      result.fail(Check::kQueryAllGates, "a request that is wrong in several ways is refused without " + code +
                                             ", which alone is a reason: every gate is to be asked");
    }
  }
}

// forward() has no argument for these: who takes them ignores them.
void carried(const Subject& subject, CaseResult& result) {
  const auto refused = [&](const char* what, void (*change)(AttentionRequest&)) {
    for (const MaskFamily mask : kMasks) {
      for (const DType dtype : kDTypes) {
        AttentionRequest request = plain_request(subject);
        request.masks = {mask};
        request.dtype = dtype;
        change(request);
        if (subject.backend->query(request).ok()) {
          result.fail(Check::kQueryCarried, std::string("takes ") + what + ", which no argument of a call carries");
        }
      }
    }
  };
  refused("a softcap", [](AttentionRequest& r) { r.softcap = 30; });
  refused("an attention sink", [](AttentionRequest& r) { r.attention_sink = true; });
  refused("dropout", [](AttentionRequest& r) { r.dropout = 0.1; });
}

}  // namespace

void run_query(const Subject& subject, const Case& c, CaseResult& result) {
  if (c.check == "pure") return pure(subject, c, result);
  if (c.check == "threads") return from_threads(subject, c, result);
  if (c.check == "reasons") return reasons(subject, c, result);
  if (c.check == "all-gates") return all_gates(subject, result);
  carried(subject, result);
}

}  // namespace attnmux::conformance
