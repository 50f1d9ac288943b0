#!/usr/bin/env bash
# Predictions before measurement, on two GPUs of one machine: one trial calibrates the simulator with the steps of its
# own log, the simulator predicts the others, and then they are measured. Some 17 minutes on two H200; what LIMIT_S
# leaves over, the next call with the same FOLDER measures.
#
#   scripts/gpu_predictions.sh FOLDER    FOLDER: what the run leaves; `predict_NAME` is written before `NAME` is measured
#
# What it deploys, and what it takes from the environment: gpu_environment.sh.
# Exit code: 0 where all trials were measured. Everything that was started ends with the script.
set -uo pipefail
FOLDER=${1:?"usage: scripts/gpu_predictions.sh FOLDER"}
# shellcheck source=scripts/gpu_environment.sh
. "$(dirname "$0")/gpu_environment.sh"
# Without asynchronous scheduling, the log of vLLM times whole steps.
TRIAL+=(
  prefill.async_scheduling=false decode.async_scheduling=false
  load.mode=fixed load.min_queries=470 load.min_duration_s=20 load.target_qps=12
)
TRIAL_S=150   # bring-up, one measurement and the end of a deployment
RACK=h200_x2_measured
NAMES=(capacity chunk batch answers prompts repeat rate eager)

changes() {
  case $1 in
    capacity) echo load.mode=capacity load.target_qps=20 load.resolution=0.05 load.min_duration_s=10 ;;
    chunk) echo prefill.max_num_batched_tokens=1024 load.target_qps=20 ;;
    batch) echo decode.max_num_seqs=24 load.target_qps=15 ;;
    answers) echo load.dataset.outputs.tokens=256 load.target_qps=15 ;;
    prompts) echo load.dataset.inputs.tokens=2048 load.target_qps=6 ;;
    rate) echo load.target_qps=20 ;;
    eager) echo prefill.enforce_eager=true decode.enforce_eager=true ;;
    repeat) echo load.target_qps=12 ;;
    rate_[0-9]*) echo "load.target_qps=${1#rate_}" ;;
  esac
}

# Predicts one trial, on the rack that was calibrated.
predict() {
  # shellcheck disable=SC2046  # a list of words
  "$PYTHON" -m tune run --config-dir "$FOLDER" "${TRIAL[@]}" cluster=$RACK "study.name=predict_$1" $(changes "$1")
}

predict_all() {
  local name
  for name in "${NAMES[@]}" rate_{14..30..2}; do
    { predict "$name" && say "$name is predicted"; } &
  done
  wait
}

calibrate() {
  local table=() phase
  for phase in prefill decode; do
    table+=("cluster.calibration.${phase}_steps=$FOLDER/steps.csv" "cluster.calibration.${phase}_scale=1")
  done
  run calibration $((TRIAL_S * 2)) run "${ON_GPUS[@]}" study.name=calibration || return
  run steps 60 steps "logs=$SCRATCH/runs/calibration" "to=$FOLDER/steps.csv" || return
  # 3.9 GB/s: what the metrics of an earlier run said of NIXL between two H200 (docs/notes/step-tables.md).
  run fit 90 calibrate calibrate.study=calibration "calibrate.to=$FOLDER/cluster/$RACK.yaml" "${table[@]}" \
    cluster.calibration.kv_transfer_bytes_per_s=3.9e9 cluster.calibration.ttft_overhead_s=0.015 \
    'calibrate.parameters=[ttft_overhead_s,prefill_scale,decode_scale,kv_transfer_latency_s]' || return
}

if [[ ! -e $FOLDER/cluster/$RACK.yaml ]]; then
  calibrate || exit
  predict_all > "$FOLDER/predictions.log" 2>&1 &   # done long before the next deployment is up
fi
CODE=0
for name in "${NAMES[@]}"; do
  [[ -e $FOLDER/$name ]] && continue
  if (($(left_s) < TRIAL_S + 30)); then
    say "$name is left for the next call: $(left_s) s left"
    CODE=3
    continue
  fi
  # shellcheck disable=SC2046  # a list of words
  run "$name" $(($(left_s) - 30)) run "${ON_GPUS[@]}" "study.name=$name" $(changes "$name") || CODE=$?
done
exit "$CODE"
