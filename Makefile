# The commands of the project; CI calls the same ones.

CARGO_FLAGS := --locked

.PHONY: run test bench setup fmt lint

# Builds the release binary and starts a hub on 127.0.0.1:8080 with its data in ./data.
run:
	cargo build --release $(CARGO_FLAGS)
	exec ./target/release/pulsehub serve --listen 127.0.0.1:8080 --data ./data --welcome

# Everything CI runs: format, lints, documentation, every Rust and browser test.
test: setup lint
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps $(CARGO_FLAGS)
	cargo test $(CARGO_FLAGS)
	PULSEHUB_BIN="$(CURDIR)/target/debug/pulsehub" npm --prefix web test

# Every load scenario, beside the floor and the peers that are installed; results in a dated folder of load-tests/results.
bench:
	@command -v nginx >/dev/null && command -v nats-server >/dev/null || \
	  echo "to measure the peers too: sudo apt-get install -y --no-install-recommends nginx libnginx-mod-nchan nats-server" >&2
	cargo build --release --workspace $(CARGO_FLAGS)
	./target/release/pulsehub-load bench

# What the tests need and the project does not bring along.
setup:
	./tools/setup

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(CARGO_FLAGS) -- -D warnings

fmt:
	cargo fmt --all
