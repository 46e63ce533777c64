# SPDX-License-Identifier: Apache-2.0
# Thin front of the CMake presets. Every command runs inside the Debian 13 environment that scripts/root provides.
SHELL := /bin/bash
RUN := ./scripts/root
JOBS ?= $(shell nproc)

.PHONY: help demo test test-unit test-asan test-asan-all test-tsan test-counts test-integration test-package interop soak package cross build exec shell bench lint format fuzz clean
help:
	@sed -n 's/^## //p' Makefile

## make demo              a whole network on this machine, every claim proven
demo: build-release
	@$(RUN) build/release/bin/sally demo

## make test              every test: unit, corpora, sanitizers, integration, foreign programs
test:
	@$(RUN) scripts/test all

## make test-unit | test-asan | test-tsan | test-counts | test-integration | test-package    one part of it
test-unit test-asan test-tsan test-counts test-integration:
	@$(RUN) scripts/test $(@:test-%=%)

## make interop           programs written with foreign SDKs against ours (part of make test)
interop:
	@$(RUN) scripts/test interop

## make test-asan-all     integration and hostile tests on the sanitized programs
test-asan-all:
	@$(RUN) scripts/test asan-all

## make soak [ONLY=expression] [SOAK='SOAK_CIRCUITS=50000 ...']    hours: tests/soak/README.md
soak:
	@$(RUN) env $(SOAK) scripts/test soak $(ONLY)

## make build-PRESET      release, dev, asan, tsan, fuzz
build-%:
	@$(RUN) scripts/build $*

## make bench [ONLY=regex]    figures beside a bare TLS relay and haproxy; table and build/bench.json
bench: build-release
	@$(RUN) scripts/build release bare_relay bench_load bench_issue
	@$(RUN) scripts/build dev year_test
	@$(RUN) tests/bench/bench.py --only '$(ONLY)'

## make package           Debian packages, a self-contained directory, SBOMs, in build/package/; make test-package: tries them
# Git does not see a linked work tree from inside the root.
package test-package cross: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)
package:
	@$(RUN) scripts/package
test-package:
	@$(RUN) scripts/test package
	@tests/package/outside

## make cross             the agent for arm64, and its tests under qemu-user (a root of its own, 1.4 GB)
cross: package
	@scripts/cross

## make lint              format, tidy of changed files, layers
lint:
	@$(RUN) scripts/lint

format:
	@$(RUN) scripts/format

## make exec CMD='...'    a command with the built programs on PATH; make shell: a shell
exec: export SALLY_CMD := $(value CMD)
exec: build-release
	@$(RUN) bash -c "$$SALLY_CMD"
shell: build-release
	@$(RUN) bash

## make fuzz T=seconds    every fuzz target for T seconds
fuzz:
	@$(RUN) scripts/fuzz $(or $(T),60)

clean:
	rm -rf build
