# The commands of the project; CI calls the same ones.

CARGO_FLAGS := --locked

.PHONY: run test soak setup fmt lint

# Builds the release binary and starts a hub on 127.0.0.1:8080 with its data in ./data.
run:
	cargo build --release $(CARGO_FLAGS)
	exec ./target/release/pulsehub serve --listen 127.0.0.1:8080 --data ./data --welcome

# Everything CI runs: format, lints, documentation, every Rust and browser test.
test: setup lint
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps $(CARGO_FLAGS)
	cargo test $(CARGO_FLAGS)
	PULSEHUB_BIN="$(CURDIR)/target/debug/pulsehub" npm --prefix web test

# A hundred random fault schedules over Redis and real outages of 45 s, reported in target/soak.txt.
soak:
	SOAK_SCHEDULES=100 cargo test $(CARGO_FLAGS) --test hub soak -- --nocapture --test-threads 1 \
		> target/soak.txt || { tail -40 target/soak.txt; exit 1; }
	cat target/soak.txt

# What the tests need and the project does not bring along.
setup:
	./tools/setup

lint:
	cargo fmt --check
	cargo clippy --all-targets $(CARGO_FLAGS) -- -D warnings

fmt:
	cargo fmt
