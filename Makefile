# The tests of the method run anywhere; those of the extension run in a WebUI that is already there.
VENV := .venv
PYTHON := $(VENV)/bin/python
WEBUI_DIR ?= $(HOME)/stable-diffusion-webui
WEBUI_PYTHON := $(WEBUI_DIR)/venv/bin/python

.PHONY: test test-webui bench lint

$(VENV)/.ready: requirements-dev.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-unet.txt
	touch $@

test: $(VENV)/.ready
	$(PYTHON) -m pytest tests --ignore=tests/webui

# Both corners: what needs no WebUI also runs on the torch that the WebUI pins. Nothing is installed into the WebUI.
test-webui: $(VENV)/.ready $(VENV)/webui-pytest
	PYTHONPATH="$(VENV)/webui-pytest:$(WEBUI_DIR)/repositories/stable-diffusion-stability-ai" \
		$(WEBUI_PYTHON) -m pytest tests --ignore=tests/webui
	WEBUI_DIR="$(WEBUI_DIR)" $(PYTHON) -m pytest tests/webui

$(VENV)/webui-pytest: | $(VENV)/.ready
	@test -x "$(WEBUI_PYTHON)" || { \
		echo "NO WEBUI: there is none at $(WEBUI_DIR). Set WEBUI_DIR to a WebUI with a venv of its own."; exit 1; }
	$(WEBUI_PYTHON) -m pip install --quiet --disable-pip-version-check --target $@ pytest

bench: $(VENV)/.ready
	PYTHONPATH=. WEBUI_DIR="$(WEBUI_DIR)" $(PYTHON) tests/webui/bench.py

lint: $(VENV)/.ready
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
