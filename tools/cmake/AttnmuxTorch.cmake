# attnmux::torch: LibTorch out of the pinned PyPI wheel, as an imported target written by hand, because the
# wheel's own TorchConfig insists on a CUDA toolkit. Links libtorch_cpu and libc10 only: the CUDA part is
# loaded at run time where a GPU is wanted. Also used by the installed package (attnmuxConfig.cmake).
#
# ATTNMUX_TORCH_DIR: folder that holds include/ and lib/ (a wheel's site-packages/torch). By default the one of .venv,
# which tools/setup makes; in the installed package the one that attnmux was built with.

set(ATTNMUX_TORCH_VERSION 2.11.0)
set(ATTNMUX_TORCH_CUDART_MAJOR 13)  # of the CUDA and NCCL that this LibTorch is built for
set(ATTNMUX_TORCH_NCCL_MAJOR 2)
set(ATTNMUX_TORCH_DIR "" CACHE PATH "LibTorch: the folder with include/ and lib/")
if(NOT ATTNMUX_TORCH_DIR)
  if(ATTNMUX_TORCH_RECORDED_DIR)
    set(_candidates ${ATTNMUX_TORCH_RECORDED_DIR})
  else()
    file(GLOB _candidates ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  endif()
  if(_candidates)
    list(GET _candidates 0 _first)
    set(ATTNMUX_TORCH_DIR ${_first} CACHE PATH "" FORCE)
  endif()
endif()
if(NOT EXISTS ${ATTNMUX_TORCH_DIR}/include/ATen/ATen.h)
  message(FATAL_ERROR "LibTorch not found (ATTNMUX_TORCH_DIR='${ATTNMUX_TORCH_DIR}').\n"
    "Pass -DATTNMUX_TORCH_DIR=<site-packages/torch of torch==${ATTNMUX_TORCH_VERSION}>; in attnmux's own tree "
    "tools/setup installs it into .venv.")
endif()
file(STRINGS ${ATTNMUX_TORCH_DIR}/include/torch/headeronly/version.h _lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]*([0-9]+)" "\\1" _numbers "${_lines}")
string(REPLACE ";" "." _found "${_numbers}")
if(NOT _found STREQUAL ATTNMUX_TORCH_VERSION)
  message(FATAL_ERROR "LibTorch ${_found} in ${ATTNMUX_TORCH_DIR}; this release is built for "
    "${ATTNMUX_TORCH_VERSION} exactly. Pass -DATTNMUX_TORCH_DIR=<site-packages/torch of that version>; in attnmux's "
    "own tree tools/setup installs it into .venv.")
endif()

# libtorch_cpu needs these two libraries of the CUDA runtime even on a machine without a GPU.
cmake_path(GET ATTNMUX_TORCH_DIR PARENT_PATH _site)
set(ATTNMUX_TORCH_RPATH ${ATTNMUX_TORCH_DIR}/lib ${_site}/nvidia/cu13/lib)

if(NOT TARGET attnmux::torch)
  foreach(_lib c10 torch_cpu)
    add_library(attnmux::${_lib} SHARED IMPORTED)
    set_target_properties(attnmux::${_lib} PROPERTIES
      IMPORTED_LOCATION ${ATTNMUX_TORCH_DIR}/lib/lib${_lib}.so IMPORTED_NO_SONAME ON)
  endforeach()
  add_library(attnmux::torch INTERFACE IMPORTED)
  # -idirafter: the wheel carries its own fmt, which must stay behind the system's.
  target_compile_options(attnmux::torch INTERFACE
    "SHELL:-idirafter ${ATTNMUX_TORCH_DIR}/include"
    "SHELL:-idirafter ${ATTNMUX_TORCH_DIR}/include/torch/csrc/api/include")
  target_link_libraries(attnmux::torch INTERFACE attnmux::torch_cpu attnmux::c10
    ${ATTNMUX_TORCH_DIR}/lib/libgomp.so.1)  # LibTorch's own: two OpenMP runtimes in a process would fight for the cores
  target_link_options(attnmux::torch INTERFACE "LINKER:-rpath-link,${ATTNMUX_TORCH_DIR}/lib"
    "LINKER:-rpath-link,${_site}/nvidia/cu13/lib")
endif()
