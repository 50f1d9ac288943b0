#!/usr/bin/env bash
# Predictions before measurement, on GPUs of one machine: one trial calibrates the simulator with the steps of its own
# log, the simulator predicts the others, and then they are measured. Some 17 minutes on two H200 with one prefill and one
# decode worker, as long on one with an aggregated worker; what LIMIT_S leaves over, the next call with the same FOLDER
# measures.
#
#   scripts/gpu_predictions.sh FOLDER [aggregated]   FOLDER: what the run leaves; `predict_NAME` is written before `NAME`
#                                                    is measured
#
# What it deploys, and what it takes from the environment: gpu_environment.sh.
# Exit code: 0 where all trials were measured. Everything that was started ends with the script.
set -uo pipefail
FOLDER=${1:?"usage: scripts/gpu_predictions.sh FOLDER [aggregated]"}
KIND=${2:-disaggregated}
[[ $KIND == aggregated ]] && POOLS=(aggregated)
# shellcheck source=scripts/gpu_environment.sh
. "$(dirname "$0")/gpu_environment.sh"
# Without asynchronous scheduling, the log of vLLM times whole steps.
TRIAL+=("${POOLS[@]/%/.async_scheduling=false}" load.mode=fixed load.min_queries=470 load.min_duration_s=20)

if [[ $KIND == aggregated ]]; then
  # Lengths that vary, near the highest rate: steps of many sizes, most of which read prompts and continue answers.
  TRIAL+=(
    load=lognormal load.dataset.inputs.mean_tokens=512 load.dataset.inputs.sd_tokens=512
    load.dataset.inputs.max_tokens=4096 load.dataset.outputs.mean_tokens=128 load.dataset.outputs.sd_tokens=96
    load.dataset.outputs.max_tokens=512 load.target_qps=22
  )
  TRIAL_S=100   # bring-up, one measurement and the end of a deployment
  RACK=h200_measured
  NAMES=(capacity budget seqs low rate prompts answers best beyond repeat)
  RATES=()
  FIT=('calibrate.parameters=[ttft_overhead_s,decode_step_gap_s]')
else
  TRIAL+=(load=fixed load.dataset.inputs.tokens=512 load.dataset.outputs.tokens=128 load.target_qps=12)
  TRIAL_S=150
  RACK=h200_x2_measured
  NAMES=(capacity chunk batch answers prompts repeat rate eager)
  RATES=(rate_{14..30..2})
  # 3.9 GB/s: what the metrics of an earlier run said of NIXL between two H200 (docs/notes/step-tables.md).
  FIT=(
    cluster.calibration.kv_transfer_bytes_per_s=3.9e9 cluster.calibration.ttft_overhead_s=0.015
    'calibrate.parameters=[ttft_overhead_s,prefill_scale,decode_scale,kv_transfer_latency_s]'
  )
fi

changes() {
  case $KIND-$1 in
    *-capacity) echo load.mode=capacity load.target_qps=20 load.resolution=0.05 load.min_duration_s=10 ;;
    *-rate_[0-9]*) echo "load.target_qps=${1#rate_}" ;;
    *-repeat) ;;
    aggregated-best) echo "$(< "$FOLDER/best.txt")" "$(changes capacity)" ;;
    aggregated-budget) echo aggregated.max_num_batched_tokens=512 load.target_qps=18 ;;
    aggregated-seqs) echo aggregated.max_num_seqs=32 load.target_qps=16 ;;
    aggregated-low) echo load.target_qps=10 ;;
    aggregated-rate) echo load.target_qps=18 ;;
    aggregated-beyond) echo load.target_qps=26 ;;
    aggregated-prompts) echo load.dataset.inputs.mean_tokens=1536 load.dataset.inputs.sd_tokens=1024 load.target_qps=8 ;;
    aggregated-answers) echo load.dataset.outputs.mean_tokens=256 load.dataset.outputs.sd_tokens=128 load.target_qps=14 ;;
    *-chunk) echo prefill.max_num_batched_tokens=1024 load.target_qps=20 ;;
    *-batch) echo decode.max_num_seqs=24 load.target_qps=15 ;;
    *-answers) echo load.dataset.outputs.tokens=256 load.target_qps=15 ;;
    *-prompts) echo load.dataset.inputs.tokens=2048 load.target_qps=6 ;;
    *-rate) echo load.target_qps=20 ;;
    *-eager) echo prefill.enforce_eager=true decode.enforce_eager=true ;;
  esac
}

# Predicts one trial, on the rack that was calibrated.
predict() {
  # shellcheck disable=SC2046  # a list of words
  "$PYTHON" -m tune run --config-dir "$FOLDER" "${TRIAL[@]}" cluster=$RACK "study.name=predict_$1" $(changes "$1")
}

predict_all() {
  local name
  for name in "${NAMES[@]}" "${RATES[@]}"; do
    [[ $name == best ]] || { predict "$name" && say "$name is predicted"; } &
  done
  wait
  [[ $KIND == aggregated ]] && choose_best && predict best && say "best is predicted"
}

# Simulates the highest rate of every token budget and batch: the best of them is measured as `best`.
choose_best() {
  mkdir -p "$FOLDER/sweep"
  cat > "$FOLDER/sweep/budgets.yaml" << 'END'
# @package _global_
defaults:
  - override /search: grid
sweep:
  question: Which token budget and which batch of an aggregated worker give the highest rate?
  n_trials: 24
  space:
    max_num_batched_tokens: {kind: ordered, path: aggregated.token_budget, values: [256, 512, 1024, 2048, 4096, 8192]}
    max_num_seqs: {kind: ordered, path: aggregated.max_sequences, values: [32, 64, 128, 256]}
END
  # shellcheck disable=SC2046  # a list of words
  "$PYTHON" -m tune run --config-dir "$FOLDER" +sweep=budgets "${TRIAL[@]}" cluster=$RACK study.name=predict_budgets \
    $(changes capacity) || return
  "$PYTHON" - "$SCRATCH/runs/predict_budgets" > "$FOLDER/best.txt" << 'END'
import sys, tune
print(*(f"aggregated.{name}={value}" for name, value in tune.load_study(sys.argv[1]).best().params.items()))
END
  say "best of the simulated ones: $(< "$FOLDER/best.txt")"
}

# Seconds that a trial is given; a search for the highest rate makes several measurements.
needed_s() {
  case $1 in
    capacity | best) echo $((2 * TRIAL_S)) ;;
    *) echo "$TRIAL_S" ;;
  esac
}

calibrate() {
  local table=() phase
  for phase in prefill decode; do
    table+=("cluster.calibration.${phase}_steps=$FOLDER/steps.csv" "cluster.calibration.${phase}_scale=1")
  done
  run calibration $((TRIAL_S * 2)) run "${ON_GPUS[@]}" study.name=calibration || return
  run steps 60 steps "logs=$SCRATCH/runs/calibration" "to=$FOLDER/steps.csv" || return
  run fit 90 calibrate calibrate.study=calibration "calibrate.to=$FOLDER/cluster/$RACK.yaml" "${table[@]}" "${FIT[@]}"
}

if [[ ! -e $FOLDER/cluster/$RACK.yaml ]]; then
  calibrate || exit
  predict_all > "$FOLDER/predictions.log" 2>&1 &   # done long before the next deployment is up
fi
CODE=0
for name in "${NAMES[@]}"; do
  [[ -e $FOLDER/$name ]] && continue
  if (($(left_s) < $(needed_s "$name") + 30)); then
    say "$name is left for the next call: $(left_s) s left"
    CODE=3
    continue
  fi
  # shellcheck disable=SC2046  # a list of words
  run "$name" $(($(left_s) - 30)) run "${ON_GPUS[@]}" "study.name=$name" $(changes "$name") || CODE=$?
done
exit "$CODE"
