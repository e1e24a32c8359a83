# The two commands: `make demo` runs everything on this machine, `make test` checks everything.
# They need Rust, a C compiler and make; the database is installed where that is possible (.ci/database).

# Where rustup puts cargo, and Debian its server programs, when the shell has not been told.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

STORE ?= auto
TOUR  ?=
ARGS  ?=

CARGO_FLAGS := --profile ci --workspace --locked
BIN := $(or $(CARGO_TARGET_DIR),target)/ci

.PHONY: help demo test build fmt lint bench-quick steady clean tools

help:
	@echo 'make demo         build, start databases, app servers and headgate, serve until Ctrl-C'
	@echo '     TOUR=1       take the tour instead of serving; fails when a step fails'
	@echo '     STORE=...    auto (default), mariadb or sqlite'
	@echo '     ARGS=...     more options, such as ARGS="--https-port 9443" (ARGS=--help lists them)'
	@echo 'make test         formatting, clippy, every test, then the tour on MariaDB and on SQLite'
	@echo 'make bench-quick  CPU time per request beside nginx; needs nginx and wrk'
	@echo 'make steady       20 reloads, 20 broken ones and a kill -9 under load, with 0 failures; needs wrk'
	@echo 'make build        every program, into $(BIN)'
	@echo 'make fmt, lint    format the code; look at it with clippy'
	@echo 'make clean        remove target/, and with it the data of the demo'

demo: build
	@store=$$(.ci/database "$(STORE)") && \
	exec "$(BIN)/stack" --store "$$store" $(if $(filter-out 0 no,$(TOUR)),--tour) $(ARGS)

test: tools
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	cargo test $(CARGO_FLAGS)
	@$(MAKE) --no-print-directory build
	.ci/end-to-end "$(BIN)"

build: tools
	cargo build $(CARGO_FLAGS)

bench-quick: tools
	benches/quick/run

steady: tools
	benches/quick/steady

fmt: tools
	cargo fmt --all

lint: tools
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

clean: tools
	cargo clean

# Says what to install before cargo says what it could not find.
tools:
	@command -v cargo >/dev/null || { echo 'Rust is missing: see https://rustup.rs' >&2; exit 1; }
	@command -v cc >/dev/null || { echo 'A C compiler is missing; on Debian: apt-get install gcc libc6-dev' >&2; exit 1; }
