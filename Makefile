# The two commands: `make demo` runs everything on this machine, `make test` checks everything.
# They need Rust, a C compiler and make; database and valgrind are installed where that is possible (.ci/install).

# Where rustup puts cargo, and Debian its server programs, when the shell has not been told.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

STORE ?= auto
TOUR  ?=
ARGS  ?=

CARGO_FLAGS := --profile ci --workspace --locked
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/ci

.PHONY: help demo test build release fmt lint cost faults faults-quick bench bench-quick bench-pure bench-tools steady clean tools

help:
	@echo 'make demo         build, start databases, app servers and headgate, serve until Ctrl-C'
	@echo '     TOUR=1       take the tour instead of serving; fails when a step fails'
	@echo '     STORE=...    auto (default), mariadb or sqlite'
	@echo '     ARGS=...     more options, such as ARGS="--https-port 9443" (ARGS=--help lists them)'
	@echo 'make test         formatting, clippy, every test, the tour on MariaDB and on SQLite, faults, what a request costs'
	@echo 'make cost         instructions and allocations of one request beside the committed figures; +10 % fails'
	@echo '     UPDATE=1     commits to the figures as they are now: writes benches/cost/expected.toml'
	@echo 'make faults       servers killed, silent, flapping; full disks, reloads, restarts under load: what must hold'
	@echo 'make faults-quick the same, shortened, in 5 minutes'
	@echo '     ARGS=...     more options, such as ARGS="--only F01,F02 --json FILE" (ARGS=--help lists them, --list the faults)'
	@echo 'make release      the headgate to run in earnest, guided by a profile: $(TARGET)/pgo/headgate; 10 minutes'
	@echo 'make bench        headgate beside nginx, HAProxy and a plain relay: CPU time, latency, memory; 30 minutes'
	@echo 'make bench-quick  its headline rows, in 3 minutes'
	@echo '     HEADGATE=... the program to measure, instead of that of `make release`'
	@echo '     ARGS=...     more options, such as ARGS="--rows h1,tls --rounds 3" (ARGS=--help lists them)'
	@echo 'make bench-pure   times of the pure parts: decide, pick, header rewriting, the cache key'
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
	@$(MAKE) --no-print-directory faults-quick ARGS=
	@$(MAKE) --no-print-directory cost

build: tools
	cargo build $(CARGO_FLAGS)

# The instructions are those of an ordinary release build, which no profile changes from one time to the next; the bench
# round it counts allocations, which no optimization changes, and so is built as the tests are. Without valgrind the
# instructions are not counted, and that is said.
cost: tools
	@command -v valgrind >/dev/null || .ci/install valgrind || true
	cargo build --release --locked
	@HEADGATE="$(TARGET)/release/headgate" cargo bench $(CARGO_FLAGS) --bench cost

# The program that the tests run, with debug assertions: one of the faults is a panic, which a release build cannot be asked for.
faults: build
	HEADGATE="$(or $(HEADGATE),$(BIN)/headgate)" "$(BIN)/faults" $(ARGS)

faults-quick: build
	HEADGATE="$(or $(HEADGATE),$(BIN)/headgate)" "$(BIN)/faults" --quick $(ARGS)

release: tools
	.ci/release "$(TARGET)"

# What is measured is what ships, unless HEADGATE names another one.
bench: bench-tools $(if $(HEADGATE),,release)
	cargo build --release --locked -p compare
	HEADGATE="$(or $(HEADGATE),$(TARGET)/pgo/headgate)" "$(TARGET)/release/compare" $(ARGS)

bench-quick: bench-tools $(if $(HEADGATE),,release)
	cargo build --release --locked -p compare
	HEADGATE="$(or $(HEADGATE),$(TARGET)/pgo/headgate)" "$(TARGET)/release/compare" --quick $(ARGS)

bench-pure: tools
	cargo bench --locked --bench pure

# The peers and the load generators.
bench-tools: tools
	@for tool in nginx haproxy wrk h2load; do command -v $$tool >/dev/null || missing=1; done; \
	[ -z "$$missing" ] || .ci/install nginx haproxy wrk nghttp2-client

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
