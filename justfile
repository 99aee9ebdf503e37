# Recipes for work on redtail. `just` lists them. The steps themselves are in .ci/run.

_default:
    @just --list --unsorted

# All tests; arguments go to cargo test (`just test killed`)
test *ARGS:
    cargo test --locked {{ ARGS }}

# Formatting and lints, warnings denied
lint:
    bash .ci/run fmt clippy

# The documentation, warnings denied
docs:
    bash .ci/run docs

# Licences, bans and sources of all dependencies
deny:
    bash .ci/run deny

# Known advisories against all dependencies; DB is a local clone of the RustSec advisory database
advisories DB: _tools
    #!/usr/bin/env bash
    set -euo pipefail
    # The name under which cargo-deny looks for its default database.
    copy=target/advisory-dbs/advisory-db-3157b0e258782691
    rm -rf "$copy"
    db=$(cd {{ quote(invocation_directory()) }} && realpath --canonicalize-existing {{ quote(DB) }})
    git clone --quiet "$db" "$copy"
    git -C "$copy" log -1 --format='advisory database of %cs'
    target/tools/bin/cargo-deny --locked --offline check advisories

# What of the library's interface differs from an earlier commit's, and whether that breaks users: wants cargo-semver-checks
semver BASE="HEAD~1":
    cargo semver-checks --baseline-rev {{ BASE }}

# The benches, then the lag report
bench:
    cargo bench --locked --features bench
    cargo run --release --locked -- bench lag

# The fuzz targets, each for SECONDS: wants cargo-fuzz and nightly (fuzz/README.md)
fuzz SECONDS="600" TARGETS="record key answer config":
    REDTAIL_FUZZ_SEEDS={{ justfile_directory() }}/fuzz/corpus cargo test --locked --lib fuzz
    for target in {{ TARGETS }}; do cargo +nightly fuzz run -s none "$target" -- -max_total_time={{ SECONDS }} -max_len=8192 || exit 1; done

# What else can follow a server, beside redtail: a package of its own, minutes to build; flags stand in its main.rs
peers *ARGS:
    cargo run --release --locked --manifest-path benches/peers/Cargo.toml -- {{ ARGS }}

# Everything that must hold before a change lands
ci:
    bash .ci/run

_tools:
    @bash .ci/run tools
