# make demo   train a style LoRA on the embedded base, draw it, write the report (minutes, CPU, offline once installed)
# make test   the plain tests (about two and a half minutes on two cores)
# make check  ruff, mypy --strict and the plain tests;  make slow  the others (a quarter of an hour);  make coverage  the lines that the plain tests run
# Each makes .venv when it is not there. Only Python 3.11 or newer is needed:  make demo PYTHON=python3.12

PYTHON ?= python3
PYTEST = .venv/bin/python -m pytest --numprocesses auto --dist worksteal  # a process a core; one that is done takes from the other's
PIP = .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt
INSTALLED = .venv/.installed
INSTALLED_DEV = .venv/.installed-dev

.PHONY: demo test check slow coverage format clean
.DELETE_ON_ERROR:

# A process a core, and a thread a process: more threads wait for one another. What is set outside wins.
test check slow coverage: export OMP_NUM_THREADS ?= 1
# Else each process that a test starts compiles torch and diffusers again, 20 s a process.
test check slow coverage: export PYTHONDONTWRITEBYTECODE :=

demo: $(INSTALLED)
	.venv/bin/loraloom demo

test: $(INSTALLED_DEV)
	$(PYTEST) $(OPTIONS)

check: $(INSTALLED_DEV)
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	$(PYTEST)

slow: $(INSTALLED_DEV)
	$(PYTEST) -m slow

coverage: $(INSTALLED_DEV)
	$(PYTEST) --cov --cov-report=term

format: $(INSTALLED_DEV)
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

clean:
	rm -rf .venv .venv-newest .venv-lowest .coverage dist build .mypy_cache .ruff_cache .pytest_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11. Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

$(INSTALLED): .venv/bin/python pyproject.toml constraints.txt
	@echo "installing loraloom into .venv (about 2 GB, minutes the first time)"
	$(PIP) -e .
	@touch $@

$(INSTALLED_DEV): .venv/bin/python pyproject.toml constraints.txt
	@echo "installing loraloom and its checks into .venv (about 2.2 GB, minutes the first time)"
	$(PIP) -e '.[dev]'
	@touch $(INSTALLED) $@
