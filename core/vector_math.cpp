#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

namespace attnmux {
namespace {

// MKL picks the kernel of each vector math function at the function's first call, and where that comes from several
// threads at once, one of them may get a kernel of low accuracy: exp is then off by some 1e-5 in a part of one tensor,
// once in a process (PyTorch issue 188792, MKL 2024). So each function has its first call here, from one thread, while
// this library is loaded, before anybody can call it from several.
[[maybe_unused]] const bool called_once = [] {
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor x = at::full({1}, 0.5, dtype);
    for (const auto& function : {at::exp, at::expm1, at::log, at::log1p, at::log2, at::log10, at::sqrt, at::sin,
                                 at::cos, at::tan, at::tanh, at::erf, at::erfc}) {
      function(x);
    }
  }
  return true;
}();

}  // namespace
}  // namespace attnmux
