# `make demo` and `make test` set everything up on a fresh machine that has Python 3.11 or newer.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-cuda lint bench bench-cuda estimate-cuda golden clean

demo: $(STAMP)
	$(BIN)/graphc demo

test: $(STAMP) lint
	$(BIN)/python -m pytest -q -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# On a machine with an NVIDIA GPU: the same comparisons there, beside those in the emulator and with NVIDIA's assembler.
test-cuda: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[test,test-cuda,cuda,torch]'
	$(BIN)/python -m pytest -q tests/test_cuda_gpu.py tests/test_torch_gpu.py tests/test_jax_gpu.py tests/test_cuda_assembly.py tests/test_cuda_driver.py

bench-cuda: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[cuda,bench-cuda]'
	$(BIN)/python -m benchmarks.cuda

# What a GPU should take, by counting; needs none.
estimate-cuda: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[test-cuda]'
	$(BIN)/python -m benchmarks.cuda.estimate

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python -m benchmarks

# Write the printed forms in docs/ and tests/golden/ anew; read the difference before you commit it.
golden: $(STAMP)
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_golden.py tests/test_layout.py --update-golden

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) out build dist *.egg-info
