#include "rank_error.h"

#include <c10/util/Exception.h>

#include <new>
#include <string>

namespace attnmux {

Error as_error(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    return error;
  } catch (const c10::OutOfMemoryError& error) {
    return Error(ErrorCode::kOutOfMemory, error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return Error(ErrorCode::kInternal, std::string("LibTorch: ") + error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kOutOfMemory, "out of memory");
  } catch (const std::exception& error) {
    return Error(ErrorCode::kInternal, error.what());
  } catch (...) {
    return Error(ErrorCode::kInternal, "an exception that is no std::exception");
  }
}

Error of_rank(int32_t rank, int32_t size, const Error& error) {
  return Error(error.code(), "rank " + std::to_string(rank) + " of " + std::to_string(size) + ": " + error.what());
}

}  // namespace attnmux
