# make setup      .venv with everything (a second run costs a second)
# make demo       real handwriting to a checked certificate, under three minutes on two cores
# make test       the tests, with ruff and mypy
# make test-long  the tests that take minutes each as well
.PHONY: setup demo test test-long check
PY := .venv/bin/python

setup:
	@bash tools/setup.sh

demo: setup
	@$(PY) tools/demo.py

check: setup
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

# Whole files go to two workers; the tests on a SLURM cluster, which want the machine, come after.
test: check
	@OMP_NUM_THREADS=1 $(PY) -m pytest -m "not long" -n 2 --dist loadfile --ignore tests/cluster
	@$(PY) -m pytest -m "not long" tests/cluster

test-long: check
	@$(PY) -m pytest
