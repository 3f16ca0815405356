# Portcullis: `make demo` shows it, `make test` proves it. `make help` lists the rest.

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo

RELEASE := target/release/portcullis

# What the build needs; what the tests, the demo and the bench run; what the tests alone do; what only
# `make test-vm` runs.
BUILD_PACKAGES := gcc libc6-dev make pkg-config clang libelf-dev zlib1g-dev protobuf-compiler libprotobuf-dev
RUN_PACKAGES   := iproute2 nftables iptables ipset conntrack openvswitch-switch
TEST_PACKAGES  := procps firewalld dbus-daemon etcd-server python3-venv
VM_PACKAGES    := qemu-system-x86 busybox-static

# What the API meets in its tests, from PyPI: clients, and the service that knows their tokens.
OPENSTACK := openstacksdk==4.22.0 python-openstackclient==10.5.0 keystone==30.0.0

.DEFAULT_GOAL := help
.PHONY: help setup setup-test setup-vm build demo test lint bench install test-vm soak fuzz clean root

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: ## Install the Debian packages that are missing
	@tools/setup $(BUILD_PACKAGES) $(RUN_PACKAGES)

setup-test:
	@tools/setup $(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES)
	@tools/venv target/venv $(OPENSTACK)

setup-vm:
	@tools/setup $(BUILD_PACKAGES) $(RUN_PACKAGES) $(VM_PACKAGES)

root:
	@[ "$$(id -u)" = 0 ] || { echo "make $(MAKECMDGOALS): needs root: it makes network namespaces and loads BPF programs. Run it as root." >&2; exit 1; }

build: setup ## Build the release binary
	$(CARGO) build --release --package portcullis

demo: root build ## Security groups on real packets, every verdict beside the one expected
	@echo "This is the eBPF plane. The others: $(RELEASE) demo --plane iptables [--iptables nft|legacy], demo --plane ovs. A server with hosts: demo --cluster"
	@$(RELEASE) demo

test: root setup-test ## All tests, on real packets too; the fuzzers' corpora; `make lint` is apart
	@tools/run-tests $(CARGO) test --workspace --no-fail-fast

lint: setup ## Format, clippy, and what else a machine can see (crates/tidy)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	$(CARGO) run --quiet --package portcullis-tidy

bench: root build ## Packets and connections per second beside no filter and iptables
	@$(RELEASE) bench

test-vm: root setup-vm ## The same between real virtual machines on taps (emulated)
	$(CARGO) build --release --package portcullis --package portcullis-vmlab
	@target/release/portcullis-vmlab machines $(RELEASE) target/vm

soak: root setup-test build ## A million generated cases; kills and 10,000 changes under traffic
	$(CARGO) build --release --package portcullis-vmlab
	@target/release/portcullis-vmlab soak $(RELEASE) target/vm
	@$(RELEASE) selftest --plane ebpf --cases 1000000 --seed 1
	CHANGES=10000 $(CARGO) test --package portcullis-dataplane-iptables --test kernel traffic -- --nocapture
	CHANGES=10000 $(CARGO) test --package portcullis-dataplane-ovs --test kernel change -- --nocapture

fuzz: ## Coverage-guided fuzzing of the parsers, 60 s each
	@tools/fuzz 60

install: ## Binary, manual pages, completions, systemd unit (PREFIX, DESTDIR)
	@[ -x $(RELEASE) ] || { echo "make install: $(RELEASE) isn't there; run make build first." >&2; exit 1; }
	@tools/install $(RELEASE) "$(DESTDIR)" "$(PREFIX)"

clean: ## Remove what was built
	$(CARGO) clean
