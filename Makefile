# The commands of this repository. `make check` is for the inner loop and needs only cargo. `make test` and `make demo`
# are the two that the README names; both install what is missing (see tests/setup.sh).

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SONAME := libsss.so.$(shell echo $(VERSION) | cut -d. -f1,2)

# What cargo rustc builds the libraries for C with. bindings/python/hatch_build.py does the same.
C_LIBRARY = --no-default-features --features capi,lmdb,tls --crate-type cdylib,staticlib

# Everything here looks for what cargo builds in target/ of this clone.
unexport CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_BUILD_TARGET

.PHONY: all library check test torture demo bench header install clean

# The library for C, shared and static, and the command `sss`.
all: library
	cargo build --release --locked

# target/release/libsss.so and target/release/static/libsss.a.
library:
	cargo rustc --release --locked --lib $(C_LIBRARY)
	packaging/static-library.sh target/release/libsss.a target/release/static/libsss.a

# Format, lints, unit tests, the layers of the code, and the contract on memory:.
check:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --quiet --lib
	cargo test --locked --quiet --test it -- abi:: conformance:: layers::

test:
	@bash tests/setup.sh test
	@python3 tests/run.py

# The long versions of the tests that kill and fork processes, damage files, cut the power, kill servers, cut replies and race.
torture:
	SSS_TORTURE=1 cargo test --release --locked --test processes
	SSS_REDIS_RESTARTS=50 SSS_REDIS_REPLIES=40000 cargo test --release --locked --test it redis_faults::
	SSS_FAILOVERS=25 cargo test --release --locked --test it -- --nocapture redis_cluster:: redis_sentinel::
	SSS_TEST_ENGINE=redis-unix cargo test --release --locked --test it -- linearizable:: races::
	cd bindings/python && ../../.venv/bin/pytest -q -m torture

demo:
	@bash tests/setup.sh demo
	@bash examples/demo.sh

# The target table, measured beside the competitors: up to 15 minutes on a quiet machine, QUICK=1 for a first look.
bench:
	@bash benches/run.sh

# Writes include/sss.h from src/capi.
header:
	SSS_BLESS=1 cargo test --locked --quiet --test it abi::committed_header

install: all
	install -d "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(PREFIX)/include"
	install -m 755 target/release/libsss.so "$(DESTDIR)$(LIBDIR)/libsss.so.$(VERSION)"
	ln -sf libsss.so.$(VERSION) "$(DESTDIR)$(LIBDIR)/$(SONAME)"
	ln -sf $(SONAME) "$(DESTDIR)$(LIBDIR)/libsss.so"
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 target/release/sss "$(DESTDIR)$(PREFIX)/bin/sss"
	install -m 644 target/release/static/libsss.a "$(DESTDIR)$(LIBDIR)/libsss.a"
	install -m 644 include/sss.h "$(DESTDIR)$(PREFIX)/include/sss.h"
	printf 'prefix=%s\nlibdir=%s\nincludedir=$${prefix}/include\n\nName: sss\nDescription: server-side session store\nVersion: %s\nCflags: -I$${includedir}\nLibs: -L$${libdir} -lsss\nLibs.private: -lpthread -ldl -lm\n' \
	  '$(PREFIX)' '$(LIBDIR)' '$(VERSION)' > "$(DESTDIR)$(LIBDIR)/pkgconfig/sss.pc"
	[ -n "$(DESTDIR)" ] || [ "$$(id -u)" -ne 0 ] || ldconfig

clean:
	cargo clean
	rm -rf .venv tests/c/build bindings/elixir/_build bindings/python/build bindings/python/dist
