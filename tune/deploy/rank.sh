#!/bin/bash
# Start one rank of a worker: bash rank.sh WORKER DELAY_S COMMAND ...
# Every rank has cache folders of its own, made before it starts: ranks of one node that make the same folder at once
# end with FileExistsError. A folder that is set already is kept.
set -e
worker=$1 delay_s=$2
shift 2
cache=${TMPDIR:-/tmp}/tune-cache-$(id -u)/$worker-${SLURM_PROCID:-0}
export HF_MODULES_CACHE=${HF_MODULES_CACHE:-$cache/huggingface_modules}
export FLASHINFER_WORKSPACE_BASE=${FLASHINFER_WORKSPACE_BASE:-$cache/flashinfer}
mkdir -p "$HF_MODULES_CACHE" "$FLASHINFER_WORKSPACE_BASE"
if [ "$delay_s" != 0 ]; then
    echo "$worker starts in $delay_s s, after the workers before it on this node"
    sleep "$delay_s"
fi
exec "$@"
