# `make demo` and `make test` are all a fresh machine needs: each creates .venv, installs what is missing, does its job.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test check bench ablations ablation-possam ablation-plug ablation-amsam install clean

demo: $(INSTALLED)
	$(BIN)/detectron2-sam demo --output output/demo

test: check
	$(BIN)/python -m pytest

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
