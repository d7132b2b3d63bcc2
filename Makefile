# make install | demo | test | check | pytest | test-slow | chaos | door | zoo | containers | docs | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROCESSES ?= 2
COUNT ?= 1
CHEAP ?= 0
SEED ?= 20

.PHONY: install demo test pytest test-slow chaos door zoo check containers docs clean

install: $(STAMP)

# In compat mode the checkout is on the path itself: a folder named `dfkd` where Python is started does not hide the package.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("dfkd needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--config-settings editable_mode=compat -e '.[all,dev]'
	@touch $(STAMP)

# Trains a teacher on real handwritten digits, compresses it through the service, compares the two.
demo: install
	$(BIN)/python examples/demo.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -n $(PROCESSES)
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

# The tests wait for other processes about a third of the time, so the checks run beside them. The target fails if either does.
test: install
	@$(MAKE) --no-print-directory --jobs 2 check pytest

# Two test processes with one thread each. To run one file: `.venv/bin/python -m pytest FILE`. The tests start
# hundreds of processes that load the same modules, so Python stores the compiled modules even if the environment forbids it.
pytest: install
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal -m slow

# Injects the faults of docs/reliability.md into real processes. COUNT=1 is quick, COUNT=50 is the whole plan. Some faults
# need root, strace, faketime or e2fsprogs; the result names those that could not be run.
chaos: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --count $(COUNT) --cheap $(CHEAP) --seed $(SEED) --processes $(PROCESSES)

# Sends every bad input of docs/security.md to a real server, fuzzes the readers of files, and floods the server.
door: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.door --processes $(PROCESSES)

# Exports the nets of other packages, each in an environment of its own, reads them, and writes the matrix of docs/teachers.md.
zoo: install
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.zoo

# Builds both images and runs them. Needs root, buildah and debootstrap, and says so if they are missing.
containers: install
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	PYTHON=$(BIN)/python containers/build_check.sh

# Writes the settings table of docs/operations.md from jobs.settings, and the error codes of docs/api.md
docs: install
	$(BIN)/python docs/settings_table.py
	$(BIN)/python docs/error_table.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
