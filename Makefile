# Everything a fresh Debian 12 or 13 needs: `make test`, `make demo`. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# libnftables' Python binding exists only for Debian's own Python: no other interpreter will do.
PYTHON := /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The last four are for tests alone (ping, sysctl, mount, mkfs.ext4).
PACKAGES := nftables python3-nftables python3-venv dnsmasq-base iproute2 iputils-ping procps mount e2fsprogs
# A root shell by plain su has neither.
export PATH := $(PATH):/usr/sbin:/sbin
# Programs that tests start, hundreds of times, are compiled once.
unexport PYTHONDONTWRITEBYTECODE
# Tests that send packets and run daemons wait as well as compute: one more than there are cores.
WORKERS := $(shell echo $$(($$(nproc) + 1)))
# DNS servers of the inside, for tests: unpacked, not installed, so that no service is started on this machine.
DNS_SERVERS := build/dns-servers
DNS_PACKAGES := unbound bind9 bind9-utils
# A real DHCP client and a real VRRP router, in the same way.
LINK_PEERS := build/link-peers
LINK_PACKAGES := busybox keepalived

.PHONY: help packages install dns-servers link-peers lint test test-unit test-kernel coverage watch test-vm prove oracle-night demo bench bench-quick deb lock-deb public-suffixes deb-check test-deb clean

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

packages:
	@missing=''; \
	for package in $(PACKAGES); do \
	  [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" != 0 ]; then \
	  echo "make: these packages are missing:$$missing" >&2; \
	  echo "make: type: sudo apt-get install --no-install-recommends$$missing" >&2; exit 1; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -q </dev/null; \
	apt-get install -q -y --no-install-recommends$$missing </dev/null

$(STAMP): pyproject.toml | packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); 3.11 or later is needed (Debian 12 or later)" >&2; exit 1; }
	@$(PYTHON) -c 'import nftables' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot import nftables: is the package python3-nftables sound?" >&2; exit 1; }
	@[ -x $(BIN)/pip ] || { rm -rf $(VENV); $(PYTHON) -m venv --system-site-packages $(VENV); }
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check --root-user-action=ignore -e '.[dev]' </dev/null
	@touch $@

# What of their dependencies is not installed comes along. Without a network the tests that need them are skipped, never when CI=true.
$(DNS_SERVERS)/.unpacked: WANTED := $(DNS_PACKAGES)
$(LINK_PEERS)/.unpacked: WANTED := $(LINK_PACKAGES)
$(DNS_SERVERS)/.unpacked $(LINK_PEERS)/.unpacked: | packages
	@rm -rf $(@D); mkdir -p $(@D)/debs/partial $(@D)/root
	@echo "fetching $(WANTED) into $(@D) ..."
	@[ "$$(id -u)" != 0 ] || apt-get update -q </dev/null >/dev/null || true
	@apt-get install -q -y --no-install-recommends --download-only -o Debug::NoLocking=1 \
	  -o Dir::Cache::archives="$(CURDIR)/$(@D)/debs" $(WANTED) </dev/null >$(@D)/log 2>&1 \
	  && for deb in $(@D)/debs/*.deb; do [ ! -e "$$deb" ] || dpkg-deb -x "$$deb" $(@D)/root; done \
	  && rm -rf $(@D)/debs && touch $@ || { \
	  tail -n 5 $(@D)/log >&2; echo "make: $(WANTED) could not be fetched: tests with them are skipped" >&2; \
	  [ "$${CI:-}" != true ]; }

dns-servers: $(DNS_SERVERS)/.unpacked ## fetch unbound and BIND for tests, installed nowhere
	@:

link-peers: $(LINK_PEERS)/.unpacked ## fetch a DHCP client and keepalived for tests, installed nowhere
	@:

install: $(STAMP) ## install what is missing: Debian packages (as root) and .venv
	@:

lint: install ## ruff, mypy, import-linter, and the house lint (names, words, the map)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.house

test-unit: install ## unit and golden tests, in parallel; no root needed
	$(BIN)/python -m pytest tests/unit tests/golden -n $(WORKERS) --dist worksteal </dev/null

test-kernel: install dns-servers link-peers ## tests that send packets and run the daemon; root (skipped without, but never when CI=true); installs the peers' firewalls
	$(BIN)/python -m pytest tests/kernel tests/system tests/demo tests/bench -rs -n $(WORKERS) --dist worksteal </dev/null

prove: install ## the proof: golden sites, 500 drawn ones, wrong compilers and tables; root, some minutes
	ECLUSE_TESTS=thorough $(BIN)/python -m pytest tests/unit/proof tests/kernel/test_proof.py -n $(WORKERS) --dist worksteal </dev/null

# T is what pytest takes (a file, a folder, FILE::TEST), or an expression for -k over the unit and golden tests. One file runs by
# itself, a folder in parallel; only tests that run a DNS server of the inside need one to be there.
export T
ifeq ($(origin T),command line)
test: install $(if $(filter tests/kernel% tests/system% tests/demo% tests/bench%,$(T)),dns-servers link-peers)
	@set -f; case "$$T" in \
	  tests/*.py*) set -- $$T ;; \
	  tests/*) set -- $$T -n auto ;; \
	  *) set -- tests/unit tests/golden -k "$$T" ;; \
	esac; exec $(BIN)/python -m pytest -rs "$$@" </dev/null
else
test: install ## everything: lint, then all tests; T=FILE, T=FOLDER or T=EXPRESSION for one part
	@$(MAKE) lint
	@$(MAKE) test-unit
	@$(MAKE) test-kernel
endif

watch: install ## rerun the unit tests of what you change, at each save
	@exec $(BIN)/python -m tests.watch

# The daemons of C's tests are measured too; unit tests look at what a process of the command line loads, so theirs are not.
coverage: install $(if $(C),dns-servers link-peers) ## branches that the unit and golden tests reach; C='tests/kernel tests/system' for others
	@rm -rf build/coverage; mkdir -p build/coverage
	$(if $(C),COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml) $(BIN)/python -m pytest $(or $(C),tests/unit tests/golden) -n auto \
	  --timeout 900 --cov --cov-report=term --cov-report=html </dev/null

test-vm: test-vm-12 test-vm-13 ## Debian 12 and 13 with the package, in containers and virtual machines; root, half an hour

test-vm-%: install deb ## the half for one release: test-vm-12, test-vm-13
	@$(BIN)/python -m tests.vm.images $*
	$(BIN)/python -m pytest tests/vm -rs --durations=10 -k debian$* </dev/null

oracle-night: install ## random sites and packets against this kernel, for hours: PACKETS=N (ten million), SEED=N; root
	@exec $(BIN)/python -m tests.kernel.oracle_night $(if $(PACKETS),--packets $(PACKETS)) $(if $(SEED),--seed $(SEED)) </dev/null

demo: install ## play the day of the attack in a hospital of network namespaces; root
	@exec $(BIN)/python -m tests.lab.demo

# Pictures only; the benchmark itself needs nothing that the tests do not, and installs its peers from Debian.
MATPLOTLIB = $(BIN)/python -c 'import matplotlib' 2>/dev/null || \
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check --root-user-action=ignore matplotlib </dev/null

bench: install ## measure everything beside the peers, write docs/benchmarks.md; root, half an hour
	@$(MATPLOTLIB)
	@exec $(BIN)/python -m tests.bench

bench-quick: install ## the same in two minutes, to build/bench; root
	@exec $(BIN)/python -m tests.bench --quick --out build/bench

# Its own time and, between releases, its own version come from git: the same commit gives the same bytes.
MAKE_DEB = env PYTHONPATH=packaging $(BIN)/python -m make_deb

deb: install ## build build/deb/SUITE/ecluse_*_amd64.deb for Debian 12 and 13; DEB_VERSION=... for another version
	@command -v strip >/dev/null || $(MAKE) packages PACKAGES=binutils
	@exec $(MAKE_DEB) build $(if $(DEB_VERSION),--version $(DEB_VERSION)) </dev/null

lock-deb: install ## pin the newest libraries for the packages (packaging/requirements-*.txt)
	@exec $(MAKE_DEB) lock </dev/null

public-suffixes: install ## write the bundled list of public suffixes from Debian's package publicsuffix; LIST=FILE for another
	$(BIN)/python packaging/public_suffixes.py $(LIST)

deb-check: deb ## lintian on both packages
	@command -v lintian >/dev/null || $(MAKE) packages PACKAGES=lintian
	lintian --allow-root --fail-on error,warning --tag-display-limit 0 build/deb/*/*.deb

test-deb: deb ## the package installed, upgraded while cut, removed and purged under a real systemd, both suites; root
	@$(BIN)/python -c 'from tests.vm import images; images.need(); [images.root(suite, suite.deb()) for suite in images.SUITES]' </dev/null
	$(BIN)/python -m pytest tests/vm/test_package.py -rs </dev/null

clean: ## remove the virtual environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
