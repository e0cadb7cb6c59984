# What is done often. `just --list` names them.

# The tests, as the README says.
test:
    cargo test --workspace

# What has to hold before a change lands.
check:
    .ci/run

# The figures, on this machine.
bench name="all":
    cargo run --release -p muster-tests --bin bench -- {{name}}

# The tests that take long: full leases, many rounds.
soak:
    MUSTER_SOAK=1 cargo test --workspace --release {{etcd}} -- --include-ignored

# The store on etcd is built where there is a protoc.
etcd := if `command -v protoc || true` == "" { "" } else { "--features etcd" }

# The product's story, live.
demo:
    cargo run --release -- demo
