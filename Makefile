# The index of commands. Everything here runs on a fresh machine that has Rust (with cargo-nextest), a C compiler and
# Python 3.11 and Node 20; what else is needed, a target fetches by itself, once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Outside the clone, so that fresh clones build warm.
CACHE ?= $(HOME)/.cache/volant
export CARGO_TARGET_DIR ?= $(CACHE)/target
export VOLANT_CACHE := $(CACHE)

# Always the whole workspace: building a single package resolves other features and compiles Arrow again.
VOLANT := $(CARGO_TARGET_DIR)/debug/volant

.PHONY: help demo build test bench load peers season freshness notebooks lint fmt docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 14
	@echo
	@echo "  Built files are in $(CARGO_TARGET_DIR); set CARGO_TARGET_DIR for another place."

build: ## the service, dev profile
	cargo build --workspace --locked

demo: build ## a recorded session through a real socket to a report (RECORDING=file, DEMO_ARGS="--once --speed 40")
	$(VOLANT) demo $(if $(RECORDING),--recording "$(RECORDING)") $(DEMO_ARGS)

test: ## everything CI runs: format, lints, dependencies, tests, docs, other readers of files and documents (STEPS="fmt clippy …" for a part)
	scripts/test $(STEPS)

bench: ## criterion benches, optimised build (BENCH=analyze for a part; benches/README.md has the figures)
	cargo bench --workspace --locked --bench volant -- $(BENCH)

load: ## the real server over loopback beside a bare control: CPU, frames/s, ack times, memory (LOAD="--sessions 1 …")
	cargo bench --workspace --locked --bench load -- $(LOAD)

peers: ## the analysis beside NumPy and SciPy on the same input, stage by stage, with ratios
	benches/peers/run

season: ## ten questions over a generated season of 100 million frames beside DuckDB and Polars (SEASON="--frames 10000000")
	benches/season/run $(SEASON)

freshness: ## how soon live frames are seen in SQL after their acknowledgement
	benches/freshness/run

notebooks: ## run every notebook on generated data
	scripts/test notebooks

lint: ## format, clippy and dependency checks only
	scripts/test fmt clippy deps

fmt: ## format the source
	cargo fmt --all

docs: ## the API documentation, warnings are errors
	scripts/test docs
	@echo "open $(CARGO_TARGET_DIR)/doc/volant/index.html"

clean: ## delete built files, the Python environment and demo output
	cargo clean
	rm -rf "$(CACHE)/venv-interop" volant-demo
