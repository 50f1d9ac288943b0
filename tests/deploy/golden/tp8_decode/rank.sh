#!/bin/bash
# Start one rank of a worker: bash rank.sh WORKER DELAY_S COMMAND ...
# Every rank has cache folders of its own, made before it starts: ranks of one node that make the same folder at once
# end with FileExistsError. A folder that is set already is kept. A rank that waits for its turn says so every 10 s, as
# a worker that logs nothing new counts as hung.
set -e
worker=$1 delay_s=$2
shift 2
cache=${TMPDIR:-/tmp}/tune-cache-$(id -u)/$worker-${SLURM_PROCID:-0}
export HF_MODULES_CACHE=${HF_MODULES_CACHE:-$cache/huggingface_modules}
export FLASHINFER_WORKSPACE_BASE=${FLASHINFER_WORKSPACE_BASE:-$cache/flashinfer}
mkdir -p "$HF_MODULES_CACHE" "$FLASHINFER_WORKSPACE_BASE"
waited_s=0
while [ "$waited_s" -lt "$delay_s" ]; do
    echo "$worker has waited $waited_s/$delay_s s for the workers before it on this node"
    step_s=$((delay_s - waited_s < 10 ? delay_s - waited_s : 10))
    sleep "$step_s"
    waited_s=$((waited_s + step_s))
done
exec "$@"
