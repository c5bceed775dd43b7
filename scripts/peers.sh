#!/usr/bin/env bash
# Puts every released wheel of upstream that may be met in a rolling upgrade into target/peers/<version>: the peers of
# tests/interop_matrix.rs. Each has a folder of its own, because they all have the same module's name.
#
# Idempotent. What has no wheel for this machine's Python leaves target/peers/<version>.missing with the reason, which the
# test shows; any other failure ends the script.
set -euo pipefail
cd "$(dirname "$0")/.."
# The first one that can be met is the first with every message type but the probe; 0.3.14 has no wheel without CUDA.
versions=(0.3.8 0.3.8.post1 0.3.9 0.3.10 0.3.10.post1 0.3.10.post2 0.3.11 0.3.11.post1 0.3.12 0.3.12.post1 0.3.13 0.3.13.post1)
with_cuda=(0.3.14)
cuda_runtime=nvidia-cuda-runtime==13.0.96
peers=target/peers
python=target/venv/bin/python
# What a folder was made by; a change of it has all of them made anew.
recipe=1

mkdir -p "$peers"

# Of 100 MB, what serves upstream's store and GPUs. The engine does not load it.
trim() { # FOLDER
    rm -rf "$1"/bin "$1"/nvidia/*/include "$1"/nvidia/*/lib/*.a "$1"/mooncake/{mooncake_master,mooncake_client,transfer_engine_bench} \
        "$1"/mooncake/{_store,store}*.so "$1"/mooncake/{_ep,libmooncake_}*.so
}

# Stand-ins for the driver's library, all of whose functions say that there is no device, and a link to the runtime.
without_gpu() { # FOLDER
    local stub=$1/stub
    mkdir "$stub"
    nm -D --undefined-only "$1/mooncake/engine.so" | awk '$2 ~ /^cu[A-Z]/ {print "int " $2 "(void) { return 100; }"}' >"$stub/cuda.c"
    ${CC:-cc} -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stub/libcuda.so.1" "$stub/cuda.c"
    ln -s "$(realpath --relative-to="$stub" "$(find "$1/nvidia" -name 'libcudart.so.13')")" "$stub/libcudart.so.13"
}

fetch() { # VERSION PACKAGE [PACKAGE...]
    local version=$1 folder=$peers/$1 said
    shift
    [ "$(cat "$folder/.recipe" 2>/dev/null)" = "$recipe" ] && return
    rm -rf "$folder" "$folder.new" "$folder.missing"
    if ! said=$("$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary :all: \
        --target "$folder.new" "$@" 2>&1); then
        if grep -q 'No matching distribution' <<<"$said"; then
            echo "no wheel for $("$python" -V) on $(uname -m)" | tee "$folder.missing" >&2
            return
        fi
        echo "$said" >&2
        return 1
    fi
    trim "$folder.new"
    [ ! -d "$folder.new/nvidia" ] || without_gpu "$folder.new"
    LD_LIBRARY_PATH=$folder.new/stub PYTHONPATH=$folder.new "$python" -c 'from mooncake.engine import TransferEngine'
    echo "$recipe" >"$folder.new/.recipe"
    mv "$folder.new" "$folder"
}

for version in "${versions[@]}"; do fetch "$version" "mooncake-transfer-engine-non-cuda==$version"; done
for version in "${with_cuda[@]}"; do fetch "$version" "mooncake-transfer-engine-cuda13==$version" "$cuda_runtime"; done
