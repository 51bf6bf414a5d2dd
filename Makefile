# Stillpoint: every command sets up what it needs first. Works on a fresh Debian 12 with the Rust toolchain.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.ONESHELL:

# RocksDB takes about 20 minutes of two cores to compile, once per profile: so there is one profile, one target
# folder, and ccache behind both. In CI the folder is kept between runs.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(HOME)/.cache/stillpoint/target
else
export CARGO_TARGET_DIR ?= target
endif
# Exactly these words: another compiler command compiles RocksDB again.
export CC := ccache gcc
export CXX := ccache g++

CARGO_PROFILE := --release
BENCH_DATA ?= $(CARGO_TARGET_DIR)/bench-data
PEERS ?= $(CARGO_TARGET_DIR)/peers

.PHONY: build demo test setup setup-tests fmt fmt-check lint tidy docs bench-small bench-home bench-full bench-micro \
        bench-sources peers fuzz fuzz-corpus deny clean

build: setup ## the program, at $(CARGO_TARGET_DIR)/release/stillpoint
	cargo build $(CARGO_PROFILE) -p stillpoint-cli

demo: build ## a real snapshot of a real directory, a second one, the difference, both restored and compared
	bash cli/demo.sh "$(CARGO_TARGET_DIR)/release/stillpoint"

test: setup-tests ## every test of the workspace
	cargo nextest run $(CARGO_PROFILE) --workspace --no-fail-fast

setup:
	@bash .ci/setup build

setup-tests:
	@bash .ci/setup test

fmt: ## formats the sources
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

fmt-check:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check

lint: setup ## clippy, warnings are errors
	cargo clippy $(CARGO_PROFILE) --workspace --all-targets -- -D warnings

tidy: setup-tests ## who imports whom, file sizes, module documentation, decision notes
	cargo nextest run $(CARGO_PROFILE) -p stillpoint-testkit --test it tidy

docs: setup ## the library documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc $(CARGO_PROFILE) --workspace --no-deps --document-private-items

bench-micro: setup ## chunk, hash, compress, seal, index, tree
	cargo bench --profile release -p stillpoint-benches

bench-small: build ## the comparison with peers, a few minutes
	cargo run $(CARGO_PROFILE) -p stillpoint-benches --bin compare -- --size small --data "$(BENCH_DATA)" --peers "$(PEERS)"

bench-home: build bench-sources ## the comparison at the size of a home directory
	cargo run $(CARGO_PROFILE) -p stillpoint-benches --bin compare -- --size home --data "$(BENCH_DATA)" --peers "$(PEERS)"

bench-full: build bench-sources ## all corpora at full size: hours, 60 GB of disk
	cargo run $(CARGO_PROFILE) -p stillpoint-benches --bin compare -- --size full --data "$(BENCH_DATA)" --peers "$(PEERS)"

bench-sources: ## the Linux source package, for the home-like tree
	bash benches/sources.sh "$(BENCH_DATA)"

peers: ## restic and borg from Debian, rustic and bupstash from their crates
	bash benches/peers.sh "$(PEERS)"

fuzz: ## every fuzz target for 30 seconds
	for target in $$(cargo fuzz list); do cargo fuzz run --sanitizer none "$$target" -- -max_total_time=30; done

fuzz-corpus: setup-tests ## replays the committed fuzz corpus
	cargo nextest run $(CARGO_PROFILE) -p stillpoint-testkit --test it fuzz

deny: ## licences, sources and bans; installs cargo-deny (several minutes) where it is missing
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

clean: ## everything built, RocksDB included
	cargo clean
