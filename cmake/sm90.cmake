# SPDX-License-Identifier: Apache-2.0
# The GEMMs of Hopper, kernels/cuda/*_sm90_*.cu: CUTLASS's headers at build time, sm_90a alone, a pool of jobs of their
# own since each takes 3.9 GB. Where the headers or the architecture are not at hand the kernels are left out, this says
# so, and so does the library when it is asked why it does not run them.
#
#   add_sm90(target folder hopper)   target: has kernels/cuda/gemm_w8a8_sm90.cpp; folder: the repository; hopper: whether
#                                    sm_90a is built for

# PW_CUTLASS_DIR (of CMake, else of the environment) is the folder that has cutlass/cutlass.h; else the wheel's.
function(find_cutlass folder result)
  set(include "${PW_CUTLASS_DIR}")
  if(NOT include)
    set(include "$ENV{PW_CUTLASS_DIR}")
  endif()
  if(NOT include)
    if(NOT Python_EXECUTABLE)
      find_package(Python REQUIRED COMPONENTS Interpreter)
    endif()
    execute_process(COMMAND ${Python_EXECUTABLE} ${folder}/cmake/find_cutlass.py
      OUTPUT_VARIABLE include OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  elseif(NOT EXISTS "${include}/cutlass/cutlass.h")
    message(FATAL_ERROR "PW_CUTLASS_DIR is ${include}, which has no cutlass/cutlass.h")
  endif()
  set(${result} "${include}" PARENT_SCOPE)
endfunction()

# As many jobs as there are cores, but no more than memory has room for.
function(cutlass_jobs result)
  cmake_host_system_information(RESULT jobs QUERY NUMBER_OF_LOGICAL_CORES)
  cmake_host_system_information(RESULT megabytes QUERY TOTAL_PHYSICAL_MEMORY)
  if(EXISTS /sys/fs/cgroup/memory.max)
    file(READ /sys/fs/cgroup/memory.max limit)
    if(limit MATCHES "^([0-9]+)[0-9][0-9][0-9][0-9][0-9][0-9]\n" AND CMAKE_MATCH_1 LESS megabytes)
      set(megabytes ${CMAKE_MATCH_1})
    endif()
  endif()
  math(EXPR fit "${megabytes} / 4000")
  if(fit LESS jobs)
    set(jobs ${fit})
  endif()
  if(jobs LESS 1)
    set(jobs 1)
  endif()
  set(${result} ${jobs} PARENT_SCOPE)
endfunction()

function(add_sm90 target folder hopper)
  set(left_out "")
  if(NOT hopper)
    set(left_out "built without sm_90a: PW_CUDA_ARCHS lacks 90a-real")
  else()
    find_cutlass(${folder} include)
    if(NOT include)
      set(left_out "built without CUTLASS: pip install --no-deps nvidia-cutlass==4.2.0.0, or set PW_CUTLASS_DIR, and build anew")
    endif()
  endif()
  if(left_out)
    set_property(SOURCE ${folder}/kernels/cuda/gemm_w8a8_sm90.cpp APPEND PROPERTY
      COMPILE_DEFINITIONS "PW_SM90_LEFT_OUT=\"${left_out}\"")
    message(STATUS "CUDA: GEMMs for Hopper are left out: ${left_out}")
    return()
  endif()
  cutlass_jobs(jobs)
  set_property(GLOBAL APPEND PROPERTY JOB_POOLS cutlass=${jobs})
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/kernels/cuda/*_sm90_*.cu)
  add_library(${target}_sm90 OBJECT ${sources})
  target_include_directories(${target}_sm90 PRIVATE ${folder}/kernels/include ${folder}/kernels ${folder}/kernels/cuda)
  target_include_directories(${target}_sm90 SYSTEM PRIVATE ${include})
  # NDEBUG: an assertion that is left in a kernel is a call, around which wgmma is serialized.
  target_compile_options(${target}_sm90 PRIVATE -DNDEBUG -fmad=false --expt-relaxed-constexpr -Xptxas=-warn-spills)
  set_target_properties(${target}_sm90 PROPERTIES CUDA_ARCHITECTURES 90a-real CUDA_STANDARD 20
    CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON JOB_POOL_COMPILE cutlass)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_sm90>)
  message(STATUS "CUDA: GEMMs for Hopper with CUTLASS from ${include}, ${jobs} at a time")
endfunction()
