#!/bin/sh
# Builds the Worker, as wrangler.toml's [build] asks for, into edge/worker/build. `WORKER_IS_BUILT=1` takes what is
# there: so a deployment runs no code of a build beside its credentials.
set -eu
cd "$(dirname "$0")/../.."

if [ "${WORKER_IS_BUILT:-}" = 1 ]; then
    test -f edge/worker/build/index.js
    exit
fi

# As the crate `worker` in Cargo.lock.
version=0.8.7
if [ "$(worker-build --version 2>/dev/null)" != "$version" ]; then
    cargo install --locked "worker-build@$version"
fi
worker-build --profile edge edge/worker -- --locked
