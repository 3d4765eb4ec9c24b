# `just` lists these. Each is one command that works without just as well.

_list:
    @just --list --unsorted

# Seconds: the pure core, its tables and properties. `just test-core NAME` runs what has NAME in its name.
test-core *NAME:
    cargo test --release -p app-host-core {{NAME}}

# The first ring: every test that needs no root and no tools, against the real binary.
test:
    cargo test --release --workspace

# The second ring: what needs root, a browser and a few tools of the system (`.ci/run` installs them).
test-system:
    cargo test --release --workspace --test promises -- --ignored

# The third ring: the shipped unit under a real systemd, as root.
test-systemd *NAME:
    .ci/systemd {{NAME}}

# So many seconds of each fuzz target.
fuzz SECONDS="5":
    .ci/fuzz {{SECONDS}}

# What a change must pass before it is proposed, without the tests.
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --locked

# The packages of a registry, each built from what is in it.
package:
    cargo package --locked -p app-abi -p app-host-core -p app-host-platform -p app-host-tls -p app-host-services -p app-host-worker -p app-host-master -p app-host

# All that continuous integration runs.
ci:
    .ci/run

# Writes the tables of the reference pages that are made from the code.
docs:
    UPDATE_DOCS=1 cargo test --release -p app-host-tests --test promises -- reference

# Serves the example app on http://127.0.0.1:8080.
run:
    cargo build --release
    target/release/app-host run example-app/app-host.json
