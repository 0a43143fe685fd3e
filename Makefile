# `make train` and `make test` do everything on a fresh machine with Python >= 3.11.

PYTHON ?= python3
VENV   ?= .venv
DATA   ?= data
CORPUS ?= $(DATA)/corpus
RUN    ?= $(DATA)/run
# Your own metadata (Parquet, CSV, TSV, JSONL or a folder); empty: the embedded sample.
INPUT  ?=
# More options, e.g. SHARDS_ARGS="--balance.cap 5000" TRAIN_ARGS="--optim.lr 1e-4".
SHARDS_ARGS ?=
TRAIN_ARGS  ?=
BROWSE_ARGS ?=
# A wheel index for a chosen torch build, e.g. https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN   := $(VENV)/bin
WIT   := $(BIN)/wit
STAMP := $(VENV)/installed
# Compiled modules are kept whatever the environment says: tests start many processes.
TEST  := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
PIP   := $(BIN)/python -m pip --disable-pip-version-check
ifeq ($(CORPUS),$(DATA)/corpus)
ifeq ($(INPUT),)
CONFIG ?= runs/sample.toml
SETS   ?= $(addprefix data/sample/eval/,unseen seen swapped retrieval)
endif
endif
CONFIG ?= runs/small.toml
SETS   ?=

.PHONY: help setup shards train eval stats browse tour test browser check bench clean
.DELETE_ON_ERROR:

help: ## list the targets (the default)
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 14
	@echo 'On your own data: make shards INPUT=metadata.parquet CORPUS=dir; make train CORPUS=dir RUN=dir'

setup: $(STAMP) ## create the environment in .venv from constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'wit needs Python 3.11 or newer: run make PYTHON=/path/to/python3.11' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[all,dev]'
	@# its tokenizer and ResNets are compared with; without torchvision and timm, which they don't need
	$(PIP) install --quiet --constraint constraints.txt --no-deps open_clip_torch
	@touch $@

shards: $(STAMP) ## metadata to corpus (INPUT=, CORPUS=, SHARDS_ARGS=)
	$(WIT) shards --corpus $(CORPUS) $(if $(INPUT),--input $(INPUT)) $(SHARDS_ARGS)

$(CORPUS)/manifest.json: | $(STAMP)
	$(WIT) shards --corpus $(CORPUS) $(if $(INPUT),--input $(INPUT)) $(SHARDS_ARGS)

train: $(CORPUS)/manifest.json ## corpus to trained model, then zero-shot (CORPUS=, RUN=, CONFIG=, TRAIN_ARGS=)
	$(WIT) train --config $(CONFIG) --corpus $(CORPUS) --run $(RUN) $(TRAIN_ARGS)
	@$(if $(SETS),$(WIT) eval --run $(RUN) $(addprefix --set ,$(SETS)))

eval: ## evaluate a trained model (RUN=, SETS=)
	$(WIT) eval --run $(RUN) $(addprefix --set ,$(SETS))

stats: $(CORPUS)/manifest.json ## what the corpus holds and what was dropped (CORPUS=)
	$(WIT) stats $(CORPUS)

browse: $(CORPUS)/manifest.json ## a local page to search the corpus (CORPUS=, RUN=, BROWSE_ARGS=)
	$(WIT) browse $(CORPUS) $(if $(wildcard $(RUN)/done.json),--checkpoint $(RUN)) $(BROWSE_ARGS)

tour: train ## everything once: corpus, model, evaluation, both reports, and the page to look at it
	$(WIT) report $(CORPUS)
	$(WIT) report $(RUN)
	$(WIT) browse $(CORPUS) --checkpoint $(RUN) --open $(BROWSE_ARGS)

test: $(STAMP) ## run the tests; each half with the other half's packages blocked
	$(TEST) tests/wit tests/pipeline --without torch,tensorboard
	$(TEST) tests/train --without duckdb,img2dataset,webdataset,cv2
	$(TEST) tests/eval tests/*.py

browser: $(STAMP) ## install chromium (Debian, Ubuntu) and playwright: tests then use a real browser
	@command -v chromium >/dev/null || { \
	  sudo=$$(command -v sudo || true); export DEBIAN_FRONTEND=noninteractive; \
	  $$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends chromium >/dev/null; }
	$(PIP) install --quiet --constraint constraints.txt --editable '.[browser]'

check: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## measure beside named peers
	@set -e; for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script; done

clean: ## remove what was built (keeps .venv)
	rm -rf $(DATA) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
