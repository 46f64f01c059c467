PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH ?= torch==2.13.0
PARALLEL := -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python $(PARALLEL)
PYTHONS ?= 3.10 3.11 3.12 3.13
ELSEWHERE := tests/cli tests/host tests/images tests/model tests/tasks tests/versions tests/test_api.py tests/test_layers.py tests/commands/select \
	tests/inputs/test_folders_and_lists.py tests/inputs/test_manifests.py tests/inputs/test_shares.py \
	tests/outputs/test_carried_columns.py tests/outputs/test_resume.py tests/outputs/test_retry.py \
	tests/outputs/test_shards.py

.PHONY: demo test test-avx2 test-int8 test-oldest test-pythons test-elsewhere test-cluster lint chaos soak cluster-demo scale replicas fuzz \
	bench bench-gpu accuracy pointing ranking reference docs docs-pictures clean

# What running needs. Python compiles modules ahead when they are first imported: pip would compile all of them, which
# takes longer than the rest of the installation.
$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile -c constraints.txt "$(TORCH)" -e .
	touch $@

# What tests, documentation and clusters need too; compiled ahead, as many processes at once import it.
$(VENV)/.ready: $(VENV)/.run
	$(PIP) --no-compile -c constraints.txt -e ".[dev]"
	$(PIP) --no-compile --no-deps -c constraints.txt easy-vqa
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # some packages have files for other Pythons
	touch $@

demo: $(VENV)/.run  ## Caption the sample images, and ask about them, with the bundled model.
	$(BIN)/blip2 caption docs/examples --model tiny
	$(BIN)/blip2 vqa docs/examples --model tiny --prompt "how many shapes are there?"

test: $(VENV)/.ready  ## Run the tests, but for those of a cluster.
	$(PYTEST) -m "not cluster"

test-avx2: $(VENV)/.ready  ## Run the tests of what depends on the processor as on one without AVX-512.
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 FBGEMM_ENABLE_INSTRUCTIONS=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	$(PYTEST) -m "not cluster" tests/model tests/tasks tests/features tests/commands/search tests/tiny tests/test_api.py \
	tests/cli/test_options.py tests/cli/test_tasks.py tests/cli/test_chat.py tests/cli/test_models.py \
	tests/cli/test_doctor.py tests/cli/test_bench.py tests/run/engines/test_replicas.py tests/docs/test_docs_examples.py

test-int8: $(VENV)/.ready  ## Run the tests of what uses int8 as with a PyTorch that lacks torch.ao, operators of oneDNN, or all int8.
	for absent in torch.ao onednn int8; do \
		BLIP2_TEST_WITHOUT=$$absent $(PYTEST) -m "not cluster" tests/model tests/tiny tests/test_api.py tests/cli/test_options.py \
		tests/cli/test_doctor.py tests/cli/test_bench.py || exit 1; \
	done

# PyTorch stays at $(TORCH), of which a build for the CPU is at hand: its own lower bound is not tested here.
test-oldest: $(VENV)/.ready  ## Run the tests that need no other libraries with the oldest versions that are allowed.
	mkdir -p build
	$(BIN)/python -m tests.versions.oldest > build/oldest.txt
	$(MAKE) test-elsewhere ELSE=build/oldest CONSTRAINTS=build/oldest.txt

# Without PyTorch, whose builds for other Pythons may take gigabytes; with TORCH_TOO=1, also the tests of test-oldest.
test-pythons: $(VENV)/.ready  ## Try commands and inputs with each Python that is installed; check types for all of them.
	mkdir -p build
	$(BIN)/python -m tests.versions.oldest --without-torch > build/without-torch.txt
	@for version in $(PYTHONS); do \
		$(BIN)/mypy --python-version $$version || exit 1; \
		python=$$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python 2> /dev/null | tail -n 1); \
		python=$${python:-python$$version}; \
		if ! $$python -c "" 2> /dev/null; then \
			echo "SKIPPED: python$$version is not installed; only types were checked for it"; \
			continue; \
		fi; \
		$$python -m venv build/python$$version && \
		build/python$$version/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
			-r build/without-torch.txt && \
		build/python$$version/bin/python -m tests.versions.smoke || exit 1; \
		if [ -n "$(TORCH_TOO)" ]; then \
			$(MAKE) test-elsewhere ELSE=build/python$$version PYTHON=$$python CONSTRAINTS=/dev/null || exit 1; \
		fi; \
	done

test-elsewhere:
	$(PYTHON) -m venv $(ELSE)
	$(ELSE)/bin/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(ELSE)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: -c $(CONSTRAINTS) \
		-e ".[s3,hf,http,zst,heif,search,select]" pytest pytest-xdist hypothesis sentencepiece protobuf
	OMP_NUM_THREADS=1 $(ELSE)/bin/python $(PARALLEL) -m "not cluster" -o filterwarnings=default $(ELSEWHERE)

test-cluster: $(VENV)/.ready  ## Run the tests that start a Ray cluster.
	$(PYTEST) --maxprocesses 2 -m cluster

lint: $(VENV)/.ready  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chaos: $(VENV)/.ready  ## Kill runs at random moments, 260 times, and compare what they end with.
	$(BIN)/python -m tests.chaos.chaos --rounds 200
	$(BIN)/python -m tests.chaos.growing --kills 60

soak: $(VENV)/.ready  ## Run for an hour while processes crash, hang and are killed, and see that nothing grows or gets lost.
	$(BIN)/python -m tests.hostile.soak

cluster-demo: $(VENV)/.ready  ## Caption on a Ray cluster of two nodes on this machine, while one and the driver are killed.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.run.engines.demo

scale: $(VENV)/.ready  ## Simulate the driver of a cluster run over a hundred million rows.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.run.engines.simulation

replicas: $(VENV)/.ready  ## Measure what the parent of --devices feeds and writes, also with a slow replica.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.run.engines.feeding
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.run.engines.feeding --slow --rows 100000

fuzz: $(VENV)/.ready  ## Read 5,000 images, archives and manifests that were tampered with.
	$(BIN)/python -m tests.hostile.fuzz --cases 5000

bench: $(VENV)/.run  ## Compare speed with the loop that everybody writes.
	$(BIN)/python -m blip2cli.commands.bench.compare

bench-gpu: $(VENV)/.run  ## Compare speed on a CUDA device with the loop and transformers' beams; a few minutes.
	$(BIN)/python -m blip2cli.commands.bench.gpu

accuracy: $(VENV)/.ready  ## Measure the bundled models.
	$(BIN)/python -m blip2cli.tiny.accuracy

pointing: $(VENV)/.ready  ## Measure whether maps of --explain point at what a text names; some minutes.
	$(BIN)/python -m blip2cli.commands.bench.pointing

ranking: $(VENV)/.run  ## Measure the best of several captions with the bundled models.
	$(BIN)/python -m blip2cli.tiny.ranking

reference: $(VENV)/.run  ## Write the command-line reference.
	$(BIN)/python -m blip2cli.cli.reference > docs/cli.md

docs: $(VENV)/.ready reference  ## Build the site of the pages, into build/docs, without a network.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet -f docs/site/mkdocs.yml
	@echo 'To read it: python3 -m http.server -d build/docs, and then http://localhost:8000'

docs-pictures: $(VENV)/.ready  ## Draw the pictures of the terminal and of reports again.
	$(BIN)/python -m docs.site.pictures

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
