# One line each; `make check` is what CI runs. The commands work alone, too.
CARGO ?= cargo
export PREFIX ?= /usr/local
export DESTDIR SYSCONFDIR
# Most tests wait more than they work: more of them at a time than there are cores halve the time.
export RUST_TEST_THREADS ?= 4

.PHONY: check test bench soak fuzz doc deny install uninstall deb test-systemd test-ha install-test-tools

check:               ; .ci/run
test: install-test-tools ; $(CARGO) test --locked && scripts/soak --seconds 60
bench:               ; scripts/bench
soak:                ; scripts/soak --seconds 3600
fuzz:                ; scripts/fuzz
doc:                 ; RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --locked --no-deps
deny:                ; $(CARGO) deny --all-features check
# Where root has no cargo, what was built before is installed. What goes where: scripts/install.
install:             ; { ! command -v $(CARGO) >/dev/null || $(CARGO) build --locked --release; } && scripts/install
uninstall:           ; scripts/install --remove
deb:                 ; scripts/deb
test-systemd:        ; scripts/systemd-test
test-ha: install-test-tools ; scripts/ha-lab
install-test-tools:  ; scripts/install-test-tools
