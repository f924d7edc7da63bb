# Recipes for people who work on podkit; `just` lists them.
default:
    @just --list

# All that tests need, on a bare Debian.
install:
    ./scripts/install.sh

# Everything that CI runs.
test *args:
    ./scripts/test.sh {{args}}

# The Python package: a wheel in a fresh virtual environment, and pytest from there.
test-python *args:
    ./scripts/test-python.sh {{args}}

# The wheel of the Python package, into python/dist.
wheel:
    ./scripts/build-wheel.sh

# Builds the agent for every architecture into crates/podkit-agent/prebuilt.
agent:
    ./scripts/build-agent.sh

# Breaks promises one by one, and sees that tests notice; ten minutes, and as much to build.
mutations *args:
    ./scripts/mutations.py {{args}}

# Formatting, lints, and the structure that docs/architecture.md promises.
tidy:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --features podkit/conformance -- -D warnings
    ./scripts/build-agent.sh --clippy
    cargo test -q -p podkit --test tidy

# Ten million inputs for each fuzzer, or `just fuzz TARGET --runs N`; a table of what came of it.
fuzz *args:
    ./scripts/fuzz.sh {{args}}

# Licences, sources and duplicate versions of what we depend on.
deny:
    cargo deny check licenses bans sources

# The tables of docs/benchmarks.md.
bench *args:
    ./scripts/bench.sh {{args}}

# Attacks every engine, each attack with its control run, and writes the table of docs/security.md.
prove *args:
    ./scripts/prove.sh {{args}}

# Other kernels and set-ups, in virtual machines; names of set-ups, or all of them.
vm *args:
    ./scripts/vm.sh {{args}}
