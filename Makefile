# `make demo` and `make test` need nothing but Python 3.11 and this folder.
PYTHON ?= python3
BIN := .venv/bin
RUN := runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test lint docs clean

demo: .venv/installed
	$(BIN)/python train.py experiment=demo hydra.run.dir=$(RUN)
	$(BIN)/python generate.py ckpt_path=$(RUN)/checkpoints/best.ckpt label=all n_samples=8 output=$(RUN)/sounds
	$(BIN)/python train.py stage=test ckpt_path=$(RUN)/checkpoints/best.ckpt

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rsfE -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-dev
	$(BIN)/mkdocs build --strict

# Made once; made again only when the dependencies change. uv installs in a minute what takes pip five.
install = $(BIN)/python -m pip install --quiet uv && $(BIN)/uv pip install --quiet --compile-bytecode --python .venv --editable "$(1)" \
	|| $(BIN)/python -m pip install --quiet --editable "$(1)"

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(call install,.)
	touch $@

.venv/installed-dev: .venv/installed
	$(call install,.[dev])
	touch $@

clean:
	rm -rf .venv
