# `make demo` and `make test` are all a fresh machine needs: each creates .venv, installs what is missing, does its job.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test fuzz sanitize kill check bench ablations ablation-possam ablation-plug ablation-amsam install clean

demo: $(INSTALLED)
	$(BIN)/detectron2-sam demo --output output/demo

test: check
	$(BIN)/python -m pytest

FUZZ_MINUTES ?= 60
fuzz: $(INSTALLED)  # damaged input, drawn anew in each round; what fails is kept in .hypothesis and tried first again
	end=$$(( $$(date +%s) + 60 * $(FUZZ_MINUTES) )); while [ $$(date +%s) -lt $$end ]; do \
	FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest tests/test_fuzz.py || exit 1; done

SANITIZED := tests/sam_common/masks tests/sam_common/io/test_native.py tests/possam/deformable_attention
sanitize: $(INSTALLED)  # the C++ under AddressSanitizer and UndefinedBehaviorSanitizer; nvcc cannot run beside them
	CXX=$(CURDIR)/tests/support/sanitizing_compiler ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	$(BIN)/python -m pytest $(SANITIZED) -k "not nvcc"

kill: $(INSTALLED)  # an hour: runs of every method, ended at many points of their files by a kill, signals, a full disk
	DETECTRON2_SAM_KILL_POINTS=20 $(BIN)/python -m pytest tests/detectron2_sam/commands/test_kill.py

ablations: $(INSTALLED)  # hours: every table of the three papers; given again, it goes on
	$(BIN)/detectron2-sam prepare generated
	$(BIN)/detectron2-sam reproduce --device cpu --table embedded --output output/ablations --report docs/reproduction.md

ablation-possam: $(INSTALLED)
	$(BIN)/detectron2-sam prepare generated
	$(BIN)/detectron2-sam reproduce --device cpu --table ablation-possam --output output/ablation_possam

ablation-plug: $(INSTALLED)
	$(BIN)/detectron2-sam prepare generated
	$(BIN)/detectron2-sam reproduce --device cpu --table ablation-plug --output output/ablation_plug

ablation-amsam: $(INSTALLED)
	$(BIN)/detectron2-sam prepare generated
	$(BIN)/detectron2-sam reproduce --device cpu --table ablation-amsam --output output/ablation_amsam

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.run

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv output build *.egg-info
