#include "ffa_sm90/tensor_map.h"

#include <cuda_runtime_api.h>

#include <string>

#include "attnmux/error.h"

namespace attnmux::ffa_sm90 {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// Asked of the runtime, so that nothing links against the driver's library: it is missing where there is no GPU.
EncodeTiled encode_tiled() {
  static const EncodeTiled function = [] {
    void* pointer = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &pointer, 12000, cudaEnableDefault, &found);
    if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
      throw Error(ErrorCode::kDeviceError,
                  "the CUDA driver has no cuTensorMapEncodeTiled; a driver of CUDA 12.0 or newer is needed");
    }
    return reinterpret_cast<EncodeTiled>(pointer);
  }();
  return function;
}

}  // namespace

CUtensorMap make_tensor_map(const char* name, const TensorView& tensor, Element element, uint32_t rows) {
  const cuuint64_t extents[3] = {static_cast<cuuint64_t>(tensor.head_dim), static_cast<cuuint64_t>(tensor.heads),
                                 static_cast<cuuint64_t>(tensor.tokens)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(tensor.head_stride) * 2,
                                 static_cast<cuuint64_t>(tensor.token_stride) * 2};
  const cuuint32_t box[3] = {64, 1, rows};
  const cuuint32_t steps[3] = {1, 1, 1};
  CUtensorMap map;
  const CUresult result = encode_tiled()(
      &map, element == Element::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3,
      tensor.data, extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(name) + ": no tensor map for base " +
                    std::to_string(reinterpret_cast<uintptr_t>(tensor.data)) + ", strides " +
                    std::to_string(tensor.token_stride) + " and " + std::to_string(tensor.head_stride) +
                    " elements; base and strides must be multiples of 16 bytes and the inner stride 1");
  }
  return map;
}

}  // namespace attnmux::ffa_sm90
