# `make demo` and `make test` are all that a newcomer needs; both set the machine up first (scripts/setup).
.PHONY: demo test test-all check setup bench clean

PY = .venv/bin/python

demo: setup
	$(PY) -m trainmaster lab demo

test: setup
	$(PY) -m pytest -q -m "not slow"

test-all: setup
	$(PY) -m pytest -q

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: setup
	for script in benchmarks/*.py; do $(PY) $$script --quick || exit 1; done

setup:
	@scripts/setup

clean:
	rm -rf .venv demo build *.egg-info src/*.egg-info
