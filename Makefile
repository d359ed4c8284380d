# The commands of the project; CI calls the same ones.

CARGO_FLAGS := --locked
CARGO_DENY := 0.20.2

N := 20

# Where cargo builds: CARGO_TARGET_DIR, where that is set.
HUB := $(or $(CARGO_TARGET_DIR),./target)/debug/pulsehub

# What the page is made of.
PAGE := $(shell find web/src web/public web/tools web/client -name node_modules -prune -o -print) \
	$(wildcard web/*.html web/*.json web/*.js web/*.ts)

.PHONY: run demo how-long page test flaky bench soak valkey setup fmt lint deny weight

# Builds the page and a hub, quickly rather than for speed, and starts it on 127.0.0.1:8080 with its data in ./data.
run: how-long page
	cargo build $(CARGO_FLAGS)
	exec $(HUB) serve --listen 127.0.0.1:8080 --data ./data --welcome

# The same with four synthetic producers, in a folder that is gone afterwards.
demo: how-long page
	cargo build $(CARGO_FLAGS)
	exec $(HUB) demo --listen 127.0.0.1:8080

# Said before anything is built. Below it npm and cargo name what they do.
how-long:
	@[ -e $(HUB) ] || echo "The first build takes some three minutes on two idle cores: half a minute for the page, the rest" \
	  "for the hub. Later ones take seconds."

# Builds the page into web/dist, from where it is compiled in. Without npm the hub says how to build it later.
ifeq ($(shell command -v npm),)
page:
	@echo "npm is not installed: the hub is built without its page"
else
page: web/dist/index.html
endif

web/dist/index.html: web/node_modules/.package-lock.json $(PAGE)
	@echo "Building the page"
	npm --prefix web run build

# npm writes this file last.
web/node_modules/.package-lock.json: web/package-lock.json
	@echo "Fetching what the page is built with"
	npm --prefix web ci --no-audit --no-fund --loglevel=http

# Everything CI runs: format, lints, documentation, every Rust, page and browser test.
test: setup lint page
	npm --prefix web run check
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps $(CARGO_FLAGS)
	cargo test --workspace $(CARGO_FLAGS)
	PULSEHUB_BIN="$(CURDIR)/target/debug/pulsehub" npm --prefix web test

# All Rust tests N times in random order, HOGS busy loops beside them; lists which failed how often. No retries.
flaky:
	./tools/flaky $(N) $(if $(HOGS),--hogs $(HOGS))

# A hundred random fault schedules over Redis and real outages of 45 s, reported in tests/cluster/soak.txt.
soak:
	SOAK_SCHEDULES=100 cargo test --workspace $(CARGO_FLAGS) --test hub soak -- --nocapture --test-threads 1 \
		> tests/cluster/soak.txt || { tail -40 tests/cluster/soak.txt; exit 1; }
	cat tests/cluster/soak.txt

# The tests of many nodes with a Valkey in the place of Redis. Apart from `test`, because older Debians have none.
valkey:
	./tools/valkey

# Every load scenario, or those that SCENARIOS names, beside the floor and the peers that are installed; results in a dated
# folder of load-tests/results.
bench:
	cargo build --release $(CARGO_FLAGS)
	cargo build --release --package pulsehub-load $(CARGO_FLAGS)
	./target/release/pulsehub-load $(if $(SCENARIOS),run $(SCENARIOS),bench)

# How long people wait for builds and tests, and how large everything is.
weight: page
	./tools/weight

# What the tests need and the project does not bring along.
setup:
	./tools/setup

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(CARGO_FLAGS) -- -D warnings

fmt:
	cargo fmt --all
	npm --prefix web run format

# What the dependencies may be, by deny.toml. Apart from `test`, because building cargo-deny takes minutes, and
# because the list of known holes comes from the network and changes by itself.
deny:
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny@$(CARGO_DENY)
	cargo deny --locked --workspace check bans licenses sources
	@cargo deny --locked --workspace check advisories || { \
	  echo "make deny: a known hole above, or no database: without RustSec's, from the network, no holes were checked" >&2; \
	  exit 1; \
	}
