// A plain backend over a dense mask that would be right, were it not for its one defect (defects.h).
#include <ATen/ATen.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/plugin.h"
#include "defects.h"

namespace attnmux::negative {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kMaxTokens = 8192;

bool is(Defect defect) { return kDefect == defect; }

[[noreturn]] void hang() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

struct DenseMask final : Prepared {
  at::Tensor blocked;  // [tokens_q, tokens_k] bool
  // What one defect keeps of forward for backward.
  mutable std::mutex mutex;
  mutable at::Tensor keys;
};

// What one defect takes instead of what it is given: the mask that this thread prepared last.
at::Tensor& blocked_of_thread() {
  static thread_local auto* blocked = new at::Tensor;
  return *blocked;
}

at::Tensor blocked_pairs(const AttnMaskSpec& mask) {
  const int64_t rows = mask.total_q(), keys = mask.total_k();
  const MaskFamily family = classify(mask);
  at::Tensor blocked = at::ones({rows, keys}, at::kBool);
  bool* row = blocked.data_ptr<bool>();
  for (int64_t q = 0; q < rows; ++q, row += keys) {
    for (const Range& range : mask.keys_of_row(q)) std::fill(row + range.begin, row + range.end, false);
  }
  if (is(Defect::kDropsMask)) blocked.fill_(false);
  if (is(Defect::kClaimsWindowComputesFull) && family == MaskFamily::kSlidingWindow) blocked.fill_(false);
  if (is(Defect::kCausalTopLeft) && family == MaskFamily::kCausal) blocked = at::ones_like(blocked).triu(1);
  if (is(Defect::kCausalOffByOne) && family == MaskFamily::kCausal) blocked = blocked.triu(keys - rows + 2);
  if (is(Defect::kIgnoresDocuments) && family == MaskFamily::kVarlenCausal) blocked = at::ones_like(blocked).triu(1);
  if (is(Defect::kDropsLastKey) && keys % 2 == 1 && keys > 1) blocked.select(1, keys - 1).fill_(true);
  return blocked;
}

// [tokens, heads_kv, dim] -> [heads_q, tokens, dim] in the dtype of computation.
at::Tensor by_query_head(const at::Tensor& x, int64_t heads_q, at::ScalarType compute) {
  const int64_t group = heads_q / x.size(1);
  const at::Tensor all = is(Defect::kWrongHeadUnderGqa) ? x.repeat({1, group, 1}) : x.repeat_interleave(group, 1);
  return all.to(compute).transpose(0, 1);
}

at::Tensor by_kv_head(const at::Tensor& x, int64_t heads_kv) {
  return x.unflatten(0, {heads_kv, x.size(0) / heads_kv}).sum(1).transpose(0, 1).contiguous();
}

// What a kernel reads that takes the address and not the strides.
at::Tensor as_contiguous(const at::Tensor& x) {
  return at::empty({0}, x.options()).set_(x.storage(), x.storage_offset(), x.sizes());
}

at::ScalarType compute_dtype(const at::Tensor& q) { return q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// [heads_q, tokens_q, tokens_k]
at::Tensor scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& blocked, double softmax_scale) {
  const at::ScalarType compute = compute_dtype(q);
  const double scale = is(Defect::kIgnoresScale) ? 1 / std::sqrt(static_cast<double>(q.size(2))) : softmax_scale;
  at::Tensor s =
      at::matmul(q.to(compute).transpose(0, 1), by_query_head(k, q.size(1), compute).transpose(1, 2)) * scale;
  if (is(Defect::kScoresRounded)) s = s.to(q.scalar_type()).to(compute);
  return is(Defect::kLeakyMask) ? s - blocked.to(compute) * 20 : s.masked_fill(blocked, -kInfinity);
}

at::Tensor probabilities(const at::Tensor& scores, const at::Tensor& lse) {
  return at::exp(scores - lse.masked_fill(lse == -kInfinity, 0).unsqueeze(2));
}

void refuse(ErrorCode code) { throw Error(code, "negative: refused"); }

// Lines such as a worker would send, to whoever listens.
void send_fake_records() {
  const char line[] = "{\"end\":0,\"record\":\"{\\\"status\\\":\\\"PASS\\\"}\"}\n{\"done\":true}\n";
  for (int descriptor = 1; descriptor < 64; ++descriptor) {
    if (::write(descriptor, line, sizeof line - 1) < 0) continue;
  }
}

void misbehave() {
  if (is(Defect::kHangs)) hang();
  if (is(Defect::kAborts)) std::abort();
  if (is(Defect::kCrashes)) std::raise(SIGSEGV);
  if (is(Defect::kExits)) std::exit(0);
  if (is(Defect::kFakesRecords)) {
    send_fake_records();
    ::_exit(0);
  }
  if (is(Defect::kClosesChannel)) {
    for (int descriptor = 3; descriptor < 64; ++descriptor) ::close(descriptor);
  }
  if (is(Defect::kPrintsWithoutEnd)) {
    static const std::string block(1 << 20, 'x');
    static std::atomic<bool> printed{false};
    if (!printed.exchange(true)) {
      for (int i = 0; i < 1024; ++i) [[maybe_unused]] const ssize_t ignored = ::write(1, block.data(), block.size());
    }
  }
}

class NegativeBackend final : public AttentionBackend {
 public:
  explicit NegativeBackend(std::string id) : id_(std::move(id)) {}

  BackendInfo info() const override {
    static std::atomic<int> calls{0};
    if (is(Defect::kInfoChanges) && ++calls == 3) return {"other", "1", "wrong on purpose"};
    return {id_, "1", "wrong on purpose"};
  }

  Support query(const AttentionRequest& request) const noexcept override {
    Support support;
    const auto need = [&](bool met, ReasonCode code, const char* got, const char* want) {
      if (met || (is(Defect::kStopsAtFirstGate) && !support.ok())) return;
      const bool silent = is(Defect::kDeclinesWithoutReason);
      support.reasons.push_back({code, silent ? "" : got, silent ? "" : want, "choose another backend"});
    };
    need(request.dtype == DType::kFloat32 || request.dtype == DType::kBFloat16, ReasonCode::kDType, "another dtype",
         "fp32, bf16");
    need(request.device == DeviceKind::kCpu, ReasonCode::kDevice, "cuda", "cpu");
    need(request.max_tokens <= kMaxTokens || is(Defect::kQuadraticWorkspace), ReasonCode::kLength, "more tokens",
         "8192");
    need(!request.cross_lengths || request.cp_size > 1 || !is(Defect::kRefusesParts), ReasonCode::kMaskCrossLengths,
         "other lengths of queries and keys", "the same");
    need(request.softcap == 0, ReasonCode::kSoftcap, "a softcap", "none");
    need(!request.attention_sink, ReasonCode::kSink, "a sink", "none");
    need(request.dropout == 0 || is(Defect::kClaimsDropout), ReasonCode::kDropout, "dropout", "none");
    if (is(Defect::kDeclinesEverything)) need(false, ReasonCode::kMaskType, "any mask", "none");
    static std::atomic<int> calls{0};
    if (is(Defect::kQueryCountsCalls)) need(++calls != 1500, ReasonCode::kMaskType, "a mask", "another");
    static const std::thread::id first = std::this_thread::get_id();
    if (is(Defect::kQueryDependsOnThread)) {
      need(std::this_thread::get_id() == first, ReasonCode::kMaskType, "a thread", "another");
    }
    return support;
  }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape&) const override {
    auto prepared = std::make_shared<DenseMask>();
    prepared->blocked = blocked_pairs(mask);
    if (is(Defect::kMaskOfThread)) blocked_of_thread() = prepared->blocked;
    return prepared;
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& given) const override {
    misbehave();
    ForwardArgs args = given;
    refusals(args);
    if (is(Defect::kStridedAsContiguous)) args.q = as_contiguous(args.q), args.k = as_contiguous(args.k);
    if (is(Defect::kStaticScratch)) args.q = through_scratch(args.q);
    const at::ScalarType compute = compute_dtype(args.q);
    const at::Tensor& blocked = blocked_of(prepared);
    if (is(Defect::kStaleKeysInBackward)) keep_keys(prepared, args.k);
    const at::Tensor empty = blocked.all(1);
    const at::Tensor s = scores(args.q, args.k, blocked, args.softmax_scale);
    at::Tensor lse = at::logsumexp(s, 2);
    at::Tensor p = at::softmax(s, 2).masked_fill(empty.unsqueeze(1), 0);
    if (is(Defect::kLargeLogits)) {
      p = at::exp(s) / at::exp(s).sum(2, /*keepdim=*/true);
      p.masked_fill_(empty.unsqueeze(1), 0);
    }
    at::Tensor out = at::matmul(p, by_query_head(args.v, args.q.size(1), compute)).transpose(0, 1).contiguous();
    if (is(Defect::kLseInLog2)) lse = lse / std::log(2.0);
    if (is(Defect::kLseWithoutScale)) lse = at::logsumexp(scores(args.q, args.k, blocked, 1), 2);
    if (is(Defect::kLseRounded)) lse = lse.to(args.q.scalar_type()).to(compute);
    if (is(Defect::kFiniteSentinel)) lse.masked_fill_(lse == -kInfinity, -1e30);
    spoil(out, empty, args);
    if (!is(Defect::kOutInFp32)) out = out.to(args.q.scalar_type());
    return {leave_traces(out, given), lse.transpose(0, 1).contiguous()};
  }

  BackwardResult backward(const Prepared& prepared, const BackwardArgs& given) const override {
    BackwardArgs args = given;
    if (is(Defect::kStaleKeysInBackward)) args.k = kept_keys(prepared, given.k);
    const at::ScalarType compute = compute_dtype(args.q);
    const at::Tensor& mask = blocked_of(prepared);
    const at::Tensor blocked = is(Defect::kBackwardIgnoresMask) ? at::zeros_like(mask) : mask;
    const at::Tensor empty = mask.all(1);
    const int64_t heads_q = args.q.size(1), heads_kv = args.k.size(1);
    const at::Tensor s = scores(args.q, args.k, blocked, args.softmax_scale);
    at::Tensor lse = args.lse.to(compute).transpose(0, 1);
    if (is(Defect::kLseInLog2)) lse = lse * std::log(2.0);
    if (is(Defect::kLseWithoutScale) || is(Defect::kBackwardIgnoresLse)) lse = at::logsumexp(s, 2);
    const at::Tensor p = probabilities(s, lse).masked_fill(empty.unsqueeze(1), 0);
    const at::Tensor dout_thd = is(Defect::kDoutAsContiguous) ? as_contiguous(args.dout) : args.dout;
    const at::Tensor dout = dout_thd.to(compute).transpose(0, 1);
    const at::Tensor dp = at::matmul(dout, by_query_head(args.v, heads_q, compute).transpose(1, 2));
    const at::Tensor delta =
        (dout * args.out.to(compute).transpose(0, 1)).sum(2, /*keepdim=*/true).masked_fill(empty.unsqueeze(1), 0);
    const double scale =
        is(Defect::kIgnoresScale) ? 1 / std::sqrt(static_cast<double>(args.q.size(2))) : args.softmax_scale;
    const at::Tensor ds = p * (is(Defect::kWithoutDelta) ? dp : dp - delta) * scale;
    at::Tensor dq = at::matmul(ds, by_query_head(args.k, heads_q, compute)).transpose(0, 1).contiguous();
    if (is(Defect::kDqWithoutScale)) dq.div_(scale);
    if (is(Defect::kDqOnEmptyRows)) dq.masked_fill_(empty.unsqueeze(1).unsqueeze(2), 1e-6);
    at::Tensor dk = at::matmul(ds.transpose(1, 2), args.q.to(compute).transpose(0, 1));
    if (is(Defect::kDkWrongUnderGqa)) {  // the first query head of a group stands for all
      dk = dk.unflatten(0, {heads_kv, heads_q / heads_kv}).select(1, 0);
    }
    const at::Tensor dv = at::matmul(p.transpose(1, 2), dout);
    const at::ScalarType dtype = args.q.scalar_type();
    return {dq.to(dtype), by_kv_head(dk, heads_kv).to(dtype), by_kv_head(dv, heads_kv).to(dtype)};
  }

 private:
  static const at::Tensor& blocked_of(const Prepared& prepared) {
    return is(Defect::kMaskOfThread) ? blocked_of_thread() : dynamic_cast<const DenseMask&>(prepared).blocked;
  }

  static void keep_keys(const Prepared& prepared, const at::Tensor& k) {
    const auto& mask = dynamic_cast<const DenseMask&>(prepared);
    const std::lock_guard lock(mask.mutex);
    mask.keys = k;
  }
  static at::Tensor kept_keys(const Prepared& prepared, const at::Tensor& k) {
    const auto& mask = dynamic_cast<const DenseMask&>(prepared);
    const std::lock_guard lock(mask.mutex);
    return mask.keys.defined() ? mask.keys : k;
  }

  void refusals(const ForwardArgs& args) const {
    if (is(Defect::kRefusesParts) && args.q.size(0) != args.k.size(0)) refuse(ErrorCode::kUnsupported);
    if (is(Defect::kRefusesAfterYes) && args.q.size(0) == 65) refuse(ErrorCode::kUnsupported);
    if (args.q.is_contiguous()) return;
    if (is(Defect::kThrowsOtherErrors)) throw std::runtime_error("strides are hard");
    if (is(Defect::kWritesBeforeRefusing)) {
      args.q.select(0, 0).zero_();
      refuse(ErrorCode::kInvalidArgument);
    }
    if (is(Defect::kBrokenAfterRefusal)) {
      broken_ = true;
      refuse(ErrorCode::kInvalidArgument);
    }
  }

  // A buffer that all calls share, and the time for another one to come. The lock keeps the handle whole: results are
  // to be wrong, the process is not to crash.
  static at::Tensor through_scratch(const at::Tensor& q) {
    static std::mutex mutex;
    static at::Tensor* scratch = new at::Tensor;
    {
      const std::lock_guard lock(mutex);
      *scratch = q.clone();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    const at::Tensor read = [&] {
      const std::lock_guard lock(mutex);
      return *scratch;
    }();
    return read.sizes() == q.sizes() ? read : q;
  }

  void spoil(at::Tensor& out, const at::Tensor& empty, const ForwardArgs& args) const {
    constexpr int64_t kTile = 64;
    const int64_t tokens = out.size(0);
    const bool plain = tokens > kTile && !empty.any().item<bool>() && args.v.lt(0).any().item<bool>();
    if (broken_) out.zero_();
    if (is(Defect::kNanOnEmptyRows)) out.masked_fill_(empty.unsqueeze(1).unsqueeze(2), std::nan(""));
    if (is(Defect::kDropsLastTile) && plain && tokens % kTile != 0) {
      const at::Tensor whole = at::empty_like(out);
      whole.slice(0, 0, tokens / kTile * kTile).copy_(out.slice(0, 0, tokens / kTile * kTile));
      out = whole;
    }
    if (is(Defect::kOneBadTile) && tokens > 8 * kTile) out.slice(0, 7 * kTile, 8 * kTile).select(1, 1).mul_(1.01);
    if (is(Defect::kOneBadElement) && plain) out.select(0, 3).select(0, 0).select(0, 5).add_(1.2e-5);
    if (is(Defect::kBiasEverywhere) && plain) out.add_(7e-7);
    if (is(Defect::kFalseDeterminism)) {
      static std::atomic<int> calls{0};
      if (++calls % 2 == 0) out.mul_(1 + 1e-7);
    }
  }

  at::Tensor leave_traces(const at::Tensor& out, const ForwardArgs& args) const {
    static auto* kept = new std::vector<at::Tensor>;
    if (is(Defect::kLeaksTensors)) kept->push_back(out.clone());
    if (is(Defect::kLeaksHeap)) {
      [[maybe_unused]] static void* volatile last = nullptr;  // volatile: the allocation may not be optimised away
      last = std::malloc(4096);
    }
    if (is(Defect::kModifiesInputs)) args.k.mul_(2);
    if (is(Defect::kWritesPastEnd) && out.numel() > 0) {
      auto* end = static_cast<char*>(out.data_ptr()) + out.nbytes();
      *static_cast<volatile char*>(end) = 0;
    }
    return out;
  }

  std::string id_;
  mutable std::atomic<bool> broken_{false};
};

void register_negative(const HostApi&, Registrar& registrar) {
  static std::atomic<int> inits{0};
  if (is(Defect::kThrowsInInit)) throw std::runtime_error("the moon is full");
  if (is(Defect::kHangsInInit)) hang();
  if (is(Defect::kExitsInInit)) std::exit(0);
  if (is(Defect::kSecondInitRegistersNothing) && ++inits > 1) return;
  registrar.add_backend(std::make_shared<NegativeBackend>(is(Defect::kDuplicateId) ? "reference" : "negative"));
}

void stop() noexcept {
  if (is(Defect::kHangsInShutdown)) hang();
}

}  // namespace
}  // namespace attnmux::negative

ATTNMUX_PLUGIN("negative", "1", "attnmux tests", attnmux::negative::register_negative, attnmux::negative::stop)
