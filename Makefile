# README.md has the plain commands, for machines without make.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
CLIENTS := .venv-clients
QUICK := tests/unit/test_package.py tests/unit/test_doctests.py tests/unit/nodes tests/unit/prompts tests/unit/sampling/test_samplers.py \
	tests/unit/sampling/test_schedulers.py tests/unit/sampling/test_windows.py tests/unit/files/test_lora_formulas.py \
	tests/unit/video/test_selection.py tests/unit/job/test_presets.py
LOCKING := .venv-lock
# Ignore this machine's settings of pip and uv: other machines do not have them.
FROM_THE_INDEX := PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= UV_NO_CONFIG=1 UV_FIND_LINKS= UV_SYSTEM_CERTS=1

.PHONY: demo docs test lint types unit quick golden clients test-host test-browser lock check-install clean

demo: $(VENV)/.ready-to-run
	$(RUN)/python demo/run.py

test: lint unit

lint: $(VENV)/.ready-to-test
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(MAKE) --silent types

types: $(VENV)/.ready-to-test
	# The import name of this folder, for a type checker without support for import hooks.
	mkdir -p build/typing && ln -sfn ../.. build/typing/animatediff_v2v
	MYPYPATH=build/typing $(RUN)/mypy -p animatediff_v2v.pipeline -p animatediff_v2v.api -p animatediff_v2v.batch -p animatediff_v2v.cli -p animatediff_v2v.migrate -p animatediff_v2v.nodes

# Networks this small gain nothing from a second thread: one process per core, each with a share of the tests.
unit: $(VENV)/.ready-to-test clients
	$(RUN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal --durations=40

# The checks to run before each commit: under 90 seconds on two cores. The rest runs in `make test`.
quick: lint
	$(RUN)/python -m pytest -q --numprocesses=auto --maxprocesses=4 --dist=worksteal $(QUICK) \
		-k "not deviation and not thousands and not every_schedule and not comfy_cli"

# Regenerates the tables that tests compare with: always the contract and English texts of the nodes; with COMFYUI_PATH and
# COMFYUI_PYTHON also ComfyUI's own nodes, samplers and noise levels, and with ANIMATEDIFF_EVOLVED_PATH its windows.
golden: $(VENV)/.ready-to-test
	WRITE_SNAPSHOTS=1 $(RUN)/python -m pytest -q tests/unit/nodes/test_node_contract.py tests/unit/nodes/test_texts.py \
		-k "snapshot or english"
ifdef COMFYUI_PATH
	WRITE_SNAPSHOTS=1 $(RUN)/python -m pytest -q tests/host/test_contract.py -k core_nodes
	cd $(firstword $(subst :, ,$(COMFYUI_PATH))) && $(or $(COMFYUI_PYTHON),$(PYTHON)) -W ignore \
		$(CURDIR)/tests/host/golden_sampling.py $(CURDIR)/tests/unit/sampling/golden $(ANIMATEDIFF_EVOLVED_PATH)
endif

# fal's own clients, as they were released, for tests/clients; Node's where there is npm.
clients: $(CLIENTS)/.ready

$(CLIENTS)/.ready: tests/clients/package.json tests/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --requirement tests/clients/requirements.txt
	cp tests/clients/package.json $(CLIENTS)
	! command -v npm > /dev/null || npm install --silent --no-audit --no-fund --prefix $(CLIENTS)
	touch $@

# Needs COMFYUI_PATH, the folder of a ComfyUI or of several with `:` between them, and COMFYUI_PYTHON,
# the interpreter that they run with.
test-host: $(VENV)/.ready-to-test
	$(RUN)/python -m pytest tests/host

# Needs the same, and Chromium; COMFYUI_FRONTEND may name the `static` folder of another frontend.
test-browser: $(VENV)/.ready-to-test
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[browser]"
	$(RUN)/python -m pytest tests/browser

# The pages of docs/ and web/docs as a site in build/docs, without a dead link.
docs: $(VENV)/.ready-to-run
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(RUN)/python -m mkdocs build --quiet --strict

$(VENV)/.ready-to-run: pyproject.toml constraints.txt
	@echo "Installing PyTorch and the other packages into $(VENV): up to 2.9 GB to download, which takes minutes."
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.ready-to-test: $(VENV)/.ready-to-run
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

# For newer versions, set UPGRADE=--upgrade, or for one package UPGRADE="--upgrade-package torch".
lock: $(LOCKING)/.ready
	$(FROM_THE_INDEX) $(LOCKING)/bin/uv pip compile --quiet --universal --python-version 3.10 --all-extras \
		--no-annotate --custom-compile-command "make lock" $(UPGRADE) \
		--output-file constraints.txt pyproject.toml

# Resolves the lock for each supported Python and system, and requirements.txt in ComfyUIs; installs nothing.
check-install: $(LOCKING)/bin/python
	@$(FROM_THE_INDEX) $(LOCKING)/bin/python .ci/check_install.py

$(LOCKING)/.ready: | $(LOCKING)/bin/python
	$(LOCKING)/bin/python -m pip install --quiet uv
	touch $@

$(LOCKING)/bin/python:
	$(PYTHON) -m venv $(LOCKING)

clean:
	rm -rf $(VENV) $(CLIENTS) $(LOCKING) demo/out
