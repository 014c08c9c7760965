# Each command makes the environment `.venv` where it is missing. `make demo` is `python -m demo`, with PROMPT and OUT.
PYTHON := .venv/bin/python
WEBUI_DIR ?= $(HOME)/stable-diffusion-webui
WEBUI_PYTHON := $(WEBUI_DIR)/venv/bin/python

# One process per core, each with whole files: the tests of a file share hosts and trainings.
IN_PARALLEL := -n logical --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-webui paper bench bench-windows bench-answer bench-hints bench-light bench-lora bench-memory bench-sparse fuzz lint environment

# Under other names, because Windows has a PROMPT of its own in every environment.
demo: export DEMO_PROMPT := $(PROMPT)
demo: export DEMO_OUT := $(OUT)
demo:
	python3 -m demo $(ARGS)

environment:
	@python3 -m demo.environment --dev

# What needs no host, and the extension on the embedded host.
test: environment
	$(PYTHON) -m pytest $(IN_PARALLEL) tests

# What needs no host on the Python, torch and numpy of a WebUI that is there, and the extension in that WebUI.
# Nothing is installed into it but what install.py adds.
test-webui: environment .venv/webui-packages
	PYTHONPATH=".venv/webui-packages:$(WEBUI_DIR)/repositories/stable-diffusion-stability-ai" \
		$(WEBUI_PYTHON) -m pytest $(IN_PARALLEL) tests/method tests/host
	WEBUI_DIR="$(WEBUI_DIR)" $(PYTHON) -m pytest $(IN_PARALLEL) tests/contract --host webui

.venv/webui-packages: requirements-dev.txt | environment
	@test -x "$(WEBUI_PYTHON)" || { \
		echo "NO WEBUI: there is none at $(WEBUI_DIR). Set WEBUI_DIR to a WebUI with a venv of its own."; exit 1; }
	rm -rf $@.part
	$(WEBUI_PYTHON) -m pip install --quiet --disable-pip-version-check --target $@.part \
		-c requirements-dev.txt -c demo/requirements.txt pytest pytest-xdist hypothesis av imageio-ffmpeg
	rm -rf $@
	mv $@.part $@
	touch $@

RANDOM_REQUESTS := tests/contract/test_random_requests.py::test_random_requests
RANDOM_FAULTS := tests/contract/test_random_faults.py::test_random_faults

# Random requests, exceptions, interrupts and skips, many more than `make test` tries. They are named one seed after the
# other, because the first of two processes gets the first half of them.
fuzz: environment
	$(PYTHON) -m pytest -n 2 --dist load -rA --seeds 2 --random-requests 10000 --random-faults 1000 $(ARGS) \
		$(foreach seed,0 1,'$(RANDOM_REQUESTS)[seed$(seed)]' '$(RANDOM_FAULTS)[seed$(seed)]')

# The paper's experiments, see docs/paper. From nothing they take hours; what is in demo/paper/verdicts is not judged again.
paper: environment
	$(PYTHON) -m demo.paper $(ARGS)

bench: environment
	WEBUI_DIR="$(WEBUI_DIR)" $(PYTHON) benchmarks/report.py $(ARGS)

bench-windows: environment
	WEBUI_DIR="$(WEBUI_DIR)" $(PYTHON) benchmarks/window_cost.py $(ARGS)

bench-answer: environment
	WEBUI_DIR="$(WEBUI_DIR)" $(PYTHON) benchmarks/answer_time.py $(ARGS)

bench-light: environment
	$(PYTHON) benchmarks/light_steps.py $(ARGS)

bench-hints: environment
	$(PYTHON) benchmarks/controlnet_hints.py $(ARGS)

bench-lora: environment
	$(PYTHON) benchmarks/frame_lora.py $(ARGS)

bench-memory: environment
	WEBUI_DIR="$(WEBUI_DIR)" $(PYTHON) benchmarks/job_memory.py $(ARGS)

bench-sparse: environment
	$(PYTHON) benchmarks/sparse_ctrl.py $(ARGS)

lint: environment
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
