#!/usr/bin/env bash
# One run on two GPUs of one machine, end to end by tune itself: preflight, a trial at a fixed rate, a search for the
# highest rate on one deployment. About seven minutes on two H200.
#
#   scripts/gpu_run.sh FOLDER            FOLDER: what the run leaves
#
# What it deploys, and what it takes from the environment: gpu_environment.sh.
# Exit code: 0 where both trials were measured, else that of tune. Everything that was started ends with the script.
set -uo pipefail
FOLDER=${1:?"usage: scripts/gpu_run.sh FOLDER"}
# shellcheck source=scripts/gpu_environment.sh
. "$(dirname "$0")/gpu_environment.sh"
TRIAL+=("${ON_GPUS[@]}" load=fixed load.dataset.inputs.tokens=512 load.dataset.outputs.tokens=128)
FIXED=(study.name=fixed load.mode=fixed load.target_qps=15 load.min_queries=470 load.min_duration_s=20)
CAPACITY=(
  study.name=capacity load.mode=capacity load.target_qps=20 load.resolution=0.05 load.min_queries=470
  load.min_duration_s=10
)

run preflight 60 preflight "${FIXED[@]}" || exit
CODE=0
run fixed $((LIMIT_S / 2)) run "${FIXED[@]}" || CODE=$?
if (($(left_s) > 90)); then
  run capacity $(($(left_s) - 30)) run "${CAPACITY[@]}" || CODE=$?
else
  say "no time left for the search: $(left_s) s"
  CODE=3
fi
exit "$CODE"
