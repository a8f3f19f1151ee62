# SPDX-License-Identifier: Apache-2.0
# The CUDA half of the kernel library. PW_CUDA=OFF leaves it out; AUTO takes it where a working nvcc is found; ON
# insists. nvcc is looked for on PATH, in CUDA_HOME and in /usr/local/cuda; no card and no driver is needed. The runtime
# is linked statically, so that the library loads on machines without CUDA.
set(PW_HAVE_CUDA OFF)
target_sources(pennyweight_kernels PRIVATE kernels/cuda/dispatch.cpp)
if(NOT PW_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "PW_CUDA must be AUTO, ON or OFF; got '${PW_CUDA}'")
endif()
if(NOT PW_CUDA STREQUAL "OFF")
  find_program(PW_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(PW_NVCC)
    set(CMAKE_CUDA_COMPILER ${PW_NVCC})
    set(CMAKE_CUDA_ARCHITECTURES ${PW_CUDA_ARCHS})
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    include(CheckLanguage)
    check_language(CUDA)  # a toolkit that refuses this C++ compiler must not stop AUTO
    if(CMAKE_CUDA_COMPILER)
      set(PW_HAVE_CUDA ON)
    endif()
  endif()
  if(PW_CUDA STREQUAL "ON" AND NOT PW_NVCC)
    message(FATAL_ERROR "PW_CUDA=ON but nvcc was not found on PATH, in CUDA_HOME or in /usr/local/cuda; install the CUDA "
      "toolkit, point CUDA_HOME at it, or configure with PW_CUDA=OFF")
  elseif(PW_CUDA STREQUAL "ON" AND NOT PW_HAVE_CUDA)
    message(FATAL_ERROR "PW_CUDA=ON but ${PW_NVCC} cannot compile with ${CMAKE_CXX_COMPILER}; set CUDAHOSTCXX to a "
      "compiler that it takes, or configure with PW_CUDA=OFF")
  endif()
endif()

if(PW_HAVE_CUDA)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  file(GLOB cuda_sources CONFIGURE_DEPENDS kernels/cuda/*.cu)
  list(FILTER cuda_sources EXCLUDE REGEX "_sm90_[^/]*\\.cu$")
  target_sources(pennyweight_kernels PRIVATE ${cuda_sources} kernels/cuda/ops.cpp kernels/cuda/gemm_w8a8_sm90.cpp
    kernels/cuda/linear_w8a8_sm90.cpp kernels/cuda/linear_w4a16_decoded.cpp)
  target_include_directories(pennyweight_kernels PRIVATE kernels/cuda)
  # As for C++: a * b + c has two roundings unless fma is written.
  target_compile_options(pennyweight_kernels PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false -Xptxas=-warn-spills>)
  target_link_libraries(pennyweight_kernels PRIVATE CUDA::cudart_static)
  string(REPLACE ";" "," architectures "${PW_CUDA_ARCHS}")
  set_source_files_properties(kernels/cuda/device.cu PROPERTIES
    COMPILE_DEFINITIONS "PW_CUDA_ARCHS=\"${architectures}\"")
  set_target_properties(pennyweight_kernels PROPERTIES CUDA_ARCHITECTURES "${PW_CUDA_ARCHS}"
    CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON
    CUDA_VISIBILITY_PRESET hidden LINKER_LANGUAGE CXX)
  message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION} for ${PW_CUDA_ARCHS}")
  include(cmake/sm90.cmake)
  set(hopper OFF)
  if(PW_CUDA_ARCHS MATCHES "90a(-real)?(;|$)")
    set(hopper ON)
  endif()
  add_sm90(pennyweight_kernels ${CMAKE_SOURCE_DIR} ${hopper})
else()
  target_sources(pennyweight_kernels PRIVATE kernels/cuda/absent.cpp)
  message(STATUS "CUDA: left out (PW_CUDA=${PW_CUDA})")
endif()
