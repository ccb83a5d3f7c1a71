// One backend id whose CPU and CUDA parts are written apart.
//
//   registrar.add_backend(make_by_device(make_magi_backend(), ffa_sm90::make_backend()));
//
// Requests and calls go to the part of their device; id, version and description are the CPU part's.
#pragma once

#include <memory>

#include "attnmux/backend.h"

namespace attnmux {

std::shared_ptr<const AttentionBackend> make_by_device(std::shared_ptr<const AttentionBackend> cpu,
                                                       std::shared_ptr<const AttentionBackend> cuda);

}  // namespace attnmux
