#include "oracle/attention_oracle.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <vector>

namespace attnmux::testing {
namespace {

// [tokens, heads, dim] doubles in a row.
struct Array {
  explicit Array(const at::Tensor& tensor)
      : tensor(tensor.to(at::kDouble).contiguous()),
        data(this->tensor.data_ptr<double>()),
        heads(tensor.size(1)),
        dim(tensor.size(2)) {}
  double* at(int64_t token, int64_t head) const { return data + (token * heads + head) * dim; }

  at::Tensor tensor;
  double* data;
  int64_t heads, dim;
};

// A result with its magnitude.
struct Sum {
  Sum(int64_t tokens, int64_t heads, int64_t dim)
      : value(at::zeros({tokens, heads, dim}, at::kDouble)), magnitude(at::zeros({tokens, heads, dim}, at::kDouble)) {}
  // += weight * row, whose own elements may be inexact by `row_magnitude`; |weight| <= weight_magnitude.
  void add(int64_t token, int64_t head, double weight, double weight_magnitude, const double* row) const {
    double* to = value.at(token, head);
    double* to_magnitude = magnitude.at(token, head);
    for (int64_t i = 0; i < value.dim; ++i) {
      to[i] += weight * row[i];
      to_magnitude[i] += weight_magnitude * std::abs(row[i]);
    }
  }
  OracleTensor tensor() const { return {value.tensor, magnitude.tensor}; }

  Array value, magnitude;
};

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

double dot_magnitude(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::abs(a[i] * b[i]);
  return sum;
}

}  // namespace

OracleResult oracle_attention(const AttnMaskSpec& mask, const OracleInputs& inputs) {
  const Array q(inputs.q), k(inputs.k), v(inputs.v), dout(inputs.dout);
  const int64_t tokens_q = inputs.q.size(0), tokens_k = inputs.k.size(0);
  const double scale = inputs.softmax_scale;
  const Sum out(tokens_q, q.heads, v.dim), lse(tokens_q, q.heads, 1);
  const Sum dq(tokens_q, q.heads, q.dim), dk(tokens_k, k.heads, q.dim), dv(tokens_k, k.heads, v.dim);
  std::vector<int64_t> keys;
  std::vector<double> p;
  for (int64_t row = 0; row < tokens_q; ++row) {
    keys.clear();
    for (int64_t key = 0; key < tokens_k; ++key) {
      if (mask.allowed(row, key)) keys.push_back(key);
    }
    for (int64_t h = 0; h < q.heads; ++h) {
      const int64_t h_kv = h / (q.heads / k.heads);
      // lse = ln sum exp(s)
      double largest = -std::numeric_limits<double>::infinity(), largest_term = 0;
      p.assign(keys.size(), 0);
      for (size_t i = 0; i < keys.size(); ++i) {
        p[i] = scale * dot(q.at(row, h), k.at(keys[i], h_kv), q.dim);
        largest = std::max(largest, p[i]);
        largest_term =
            std::max(largest_term, std::abs(scale) * dot_magnitude(q.at(row, h), k.at(keys[i], h_kv), q.dim));
      }
      double sum = 0;
      for (double s : p) sum += std::exp(s - largest);
      *lse.value.at(row, h) = keys.empty() ? largest : largest + std::log(sum);
      *lse.magnitude.at(row, h) = 1 + largest_term;
      // out = sum p v with p = exp(s - lse)
      for (size_t i = 0; i < keys.size(); ++i) {
        p[i] = std::exp(p[i] - *lse.value.at(row, h));
        out.add(row, h, p[i], p[i], v.at(keys[i], h_kv));
      }
      // dv = p^T dout; dp = dout v^T; ds = p (dp - dout . out); dq = scale ds k; dk = scale ds^T q
      const double delta = dot(dout.at(row, h), out.value.at(row, h), v.dim);
      const double delta_magnitude = dot_magnitude(dout.at(row, h), out.magnitude.at(row, h), v.dim);
      for (size_t i = 0; i < keys.size(); ++i) {
        const int64_t key = keys[i];
        dv.add(key, h_kv, p[i], p[i], dout.at(row, h));
        const double ds = scale * p[i] * (dot(dout.at(row, h), v.at(key, h_kv), v.dim) - delta);
        const double ds_magnitude =
            std::abs(scale) * p[i] * (dot_magnitude(dout.at(row, h), v.at(key, h_kv), v.dim) + delta_magnitude);
        dq.add(row, h, ds, ds_magnitude, k.at(key, h_kv));
        dk.add(key, h_kv, ds, ds_magnitude, q.at(row, h));
      }
    }
  }
  return {.out = out.tensor(),
          .lse = {lse.value.tensor.squeeze(2), lse.magnitude.tensor.squeeze(2)},
          .dq = dq.tensor(),
          .dk = dk.tensor(),
          .dv = dv.tensor()};
}

}  // namespace attnmux::testing
