# `make demo` and `make test` are all that a newcomer needs; both set the machine up first (scripts/setup).
.PHONY: demo test test-all check setup bench spank clean

PY = .venv/bin/python
# Most tests wait for Slurm, and each lab has ports and folders of its own: more files at once than there are cores.
JOBS = 3

demo: setup
	$(PY) -m trainmaster lab demo

test: setup
	$(PY) -m pytest -q -m "not slow" -n $(JOBS) --dist loadfile

test-all: setup
	$(PY) -m pytest -q -n $(JOBS) --dist loadfile

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: setup
	for script in benchmarks/*.py; do $(PY) $$script --quick || exit 1; done

# The plug-in for sbatch, salloc and srun. slurmstepd refuses one that was built against another release of Slurm.
SPANK = build/spank/trainmaster.so
SPANK_FLAGS = -std=c11 -D_GNU_SOURCE -O2 -g -fPIC -shared -Wall -Wextra -Werror -Wformat=2 -Wshadow -Wstrict-prototypes

spank: $(SPANK)

$(SPANK): slurm_plugins/spank/trainmaster.c
	@mkdir -p $(@D)
	$(CC) $(SPANK_FLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $<

setup:
	@scripts/setup

clean:
	rm -rf .venv demo build *.egg-info src/*.egg-info
