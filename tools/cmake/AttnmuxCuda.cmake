# ATTNMUX_WITH_CUDA is ON where nvcc is found (or demanded by ATTNMUX_CUDA=ON). Kernels are for sm_90a only.

set(ATTNMUX_CUDA AUTO CACHE STRING "Build the CUDA parts: AUTO, ON or OFF")
set(ATTNMUX_WITH_CUDA OFF)
if(NOT ATTNMUX_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES 90a)
    set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 does not know that nvcc 13 takes C++20
    enable_language(CUDA)
    set(ATTNMUX_WITH_CUDA ON)
  elseif(ATTNMUX_CUDA STREQUAL "ON")
    message(FATAL_ERROR "ATTNMUX_CUDA=ON, but no nvcc was found. Put the CUDA Toolkit 13.0 on PATH or set CUDACXX.")
  endif()
endif()
message(STATUS "attnmux: CUDA kernels ${ATTNMUX_WITH_CUDA}")
