# The commands of this repository. `make`, `make install` and `make uninstall` are for users, `make check`
# is for the inner loop and needs only cargo. `make test` and `make demo` install what is missing (see
# tests/setup.sh).

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
CMAKEDIR ?= $(LIBDIR)/cmake/sss
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DOCDIR ?= $(DATADIR)/doc/libsss
DESTDIR ?=

INSTALL_VARIABLES = OUT DESTDIR PREFIX BINDIR LIBDIR INCLUDEDIR PKGCONFIGDIR CMAKEDIR DATADIR MANDIR DOCDIR

# `make dist` builds with cargo-zigbuild for an older C library: CARGO=cargo-zigbuild TARGET=TRIPLE.GLIBC.
CARGO ?= cargo
TARGET ?=
BUILD = rustc --release --locked $(if $(TARGET),--target=$(TARGET))
OUT = target/$(if $(TARGET),$(firstword $(subst ., ,$(TARGET)))/)release
SOURCES := Cargo.toml Cargo.lock build.rs include/sss.h packaging/static-library.sh packaging/header_manual.py $(shell find src -type f)
BUILT = $(OUT)/libsss.so $(OUT)/static/libsss.a $(OUT)/sss

# What cargo rustc builds the libraries for C with. bindings/python/hatch_build.py does the same.
C_LIBRARY = --no-default-features --features capi,lmdb,tls --crate-type cdylib,staticlib

# Everything here looks for what cargo builds in target/ of this clone.
unexport CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_BUILD_TARGET

.PHONY: all library command check test torture demo bench header install uninstall notices dist reproducible docs abi clean

all: library command
	@touch $(BUILT)

# The library for C: target/release/libsss.so and target/release/static/libsss.a.
library:
	$(CARGO) $(BUILD) --lib $(C_LIBRARY)
	packaging/static-library.sh $(OUT)/libsss.a $(OUT)/static/libsss.a
	python3 packaging/header_manual.py > $(OUT)/sss.h.3

# The command `sss`, with its manual page and completions, which it prints itself.
command:
	$(CARGO) $(BUILD) --bin sss
	$(OUT)/sss man > $(OUT)/sss.1
	for shell in bash zsh fish; do $(OUT)/sss completions $$shell > $(OUT)/sss.$$shell || exit 1; done

# Builds nothing if everything is newer than the sources: `sudo make install` after `make` needs no cargo.
install: $(BUILT)
	@$(foreach name,$(INSTALL_VARIABLES),$(name)="$($(name))") packaging/install.sh install

$(BUILT) &: $(SOURCES)
	$(MAKE) all

# Writes THIRD-PARTY-NOTICES, after a change of the dependencies. Python wants the licences in its folder.
notices:
	python3 packaging/third_party.py notices > THIRD-PARTY-NOTICES
	cp LICENSE-APACHE LICENSE-MIT THIRD-PARTY-NOTICES bindings/python

# Builds everything twice, in two places, and compares the bytes: ten minutes.
reproducible: dist
	@python3 packaging/dist.py --work target/elsewhere/dist --out target/elsewhere/out
	diff dist/SHA256SUMS target/elsewhere/out/SHA256SUMS

# The site of the documents, in target/site.
docs:
	@python3 packaging/docs.py

# tests/abi/MAJOR.MINOR: the header of this version and its ABI, at a release.
abi:
	python3 packaging/abi.py record

uninstall:
	@$(foreach name,$(INSTALL_VARIABLES),$(name)="$($(name))") packaging/install.sh uninstall

# Everything that is published, in dist/. See RELEASING.md.
dist:
	@python3 packaging/dist.py

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

clean:
	cargo clean
	rm -rf dist .venv tests/c/build bindings/elixir/_build bindings/python/build bindings/python/dist
