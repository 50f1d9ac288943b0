# shellcheck shell=bash
# Sourced by the scripts that run tune on GPUs of this machine: the deployment that they share (Dynamo and vLLM, 24 layers
# of Llama-3.1-70B with random weights; one prefill and one decode worker, or with POOLS=(aggregated) one worker that does
# both), and what they do at their end.
# Expects FOLDER, where everything is left; its progress.log grows as the run goes. Needs no network, etcd, NATS or checkpoint.
#
# From the environment, each optional:
#   PYTHON        the interpreter that has tune                      python3
#   TUNE_PATH     PYTHONPATH of tune and its packages
#   ENGINE_PYTHON the interpreter that has Dynamo and vLLM           $PYTHON
#   ENGINE_PATH   PYTHONPATH of Dynamo, vLLM and NIXL
#   LIMIT_S       seconds after which all is stopped                 540
#   OVERRIDES     further settings of tune, for all trials, such as "load.target_qps=5"
PYTHON=$(command -v "${PYTHON:-python3}") || { echo "no interpreter ${PYTHON:-python3}" >&2; exit 2; }
ENGINE_PYTHON=$(command -v "${ENGINE_PYTHON:-$PYTHON}") || { echo "no interpreter $ENGINE_PYTHON" >&2; exit 2; }
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LIMIT_S=${LIMIT_S:-540}
mkdir -p "$FOLDER"
FOLDER=$(cd "$FOLDER" && pwd)
SCRATCH=$(mktemp -d)
BEGAN_S=$SECONDS
export PYTHONPATH="$ROOT${TUNE_PATH:+:$TUNE_PATH}"

say() { printf '%s +%ds %s\n' "$(date -u +%H:%M:%S)" $((SECONDS - BEGAN_S)) "$*" | tee -a "$FOLDER/progress.log"; }

left_s() { echo $((LIMIT_S - (SECONDS - BEGAN_S))); }

# The engine's interpreter with its own PYTHONPATH, where cluster.dynamo_venv looks for it.
mkdir -p "$SCRATCH/engine/bin"
{
  echo '#!/bin/sh'
  for name in LD_LIBRARY_PATH CUDA_HOME; do
    [[ -n ${!name:-} ]] && printf 'export %s=%q\n' "$name" "${!name}"
  done
  [[ -n ${ENGINE_PATH:-} ]] && printf 'export PYTHONPATH=%q\n' "$ENGINE_PATH"
  printf 'exec %q "$@"\n' "$ENGINE_PYTHON"
} > "$SCRATCH/engine/bin/python3"
chmod +x "$SCRATCH/engine/bin/python3"

# The rack and the model; what is true of simulator and GPUs alike.
[[ -v POOLS ]] || POOLS=(prefill decode)
SPLIT=(hardware=h200_x2 split=1p1d)
[[ ${POOLS[0]} == aggregated ]] && SPLIT=(hardware=h200_dgx hardware.gpus_per_node=1 split=aggregated split.aggregated_workers=1)
TRIAL=(
  stack=dynamo_vllm model=llama3_1_70b_24layers "${SPLIT[@]}" "${POOLS[@]/%/=vllm_one_gpu}"
  load.concatenate_permutation=false load.request_timeout_s=60 load.response_timeout_s=120
  slo.ttft_p99_s=1 slo.tpot_p99_s=0.05 "runs_dir=$SCRATCH/runs" "reports_dir=$SCRATCH/reports"
)
# How it runs on these GPUs.
# shellcheck disable=SC2034  # the scripts that source this file use it
ON_GPUS=(cluster=local "cluster.dynamo_venv=$SCRATCH/engine" cluster.deadlines.quiet_s=150 cluster.deadlines.ready_s=300)
for pool in "${POOLS[@]}"; do
  ON_GPUS+=("+$pool.env.UCX_TLS='cuda_ipc,cuda_copy,tcp,self,sm'" "+$pool.env.VLLM_USE_FLASHINFER_SAMPLER=0")
done
RUNNING=

# run NAME SECONDS ACTION WORD...: a command of tune in a session of its own, its output in NAME.log and here.
run() {
  local name=$1 limit_s=$2 action=$3 code
  shift 3
  say "$name begins"
  # OVERRIDES is a list of words.
  # shellcheck disable=SC2086
  timeout --signal=INT --kill-after=40 "$limit_s" "$PYTHON" -m tune "$action" "${TRIAL[@]}" "$@" ${OVERRIDES:-} \
    > >(tee "$FOLDER/$name.log") 2>&1 &
  RUNNING=$!
  wait "$RUNNING"
  code=$?
  RUNNING=
  say "$name ends with exit code $code"
  return "$code"
}

# Copies what the trials left, logs in brief.
pack() {
  local trial log
  (cd "$SCRATCH/runs" 2> /dev/null && find . -type f \( -name '*.json' -o -name '*.jsonl' -o -name '*.npz' \
    -o -name commands -o -name environment -o -name 'mlperf_log_summary.txt' \) -not -path '*/plan/model/*' \
    -exec cp --parents {} "$FOLDER" \;)
  for log in "$SCRATCH"/runs/*/t*/raw/*/logs/*.out; do
    [[ -e $log ]] || continue
    trial=${log#"$SCRATCH/runs/"}
    mkdir -p "$FOLDER/$(dirname "$trial")"
    [[ $log == *_w[0-9]*.out ]] && "$PYTHON" -m tune.engines.dynamo_vllm "$log" | gzip > "$FOLDER/${trial%.out}_steps.csv.gz"
    { head -c 40000 "$log"; echo; echo '...'; tail -c 40000 "$log"; } > "$FOLDER/$trial"
  done
  cp -r "$SCRATCH/reports" "$FOLDER/" 2> /dev/null
  nvidia-smi --query-gpu=name,memory.used --format=csv > "$FOLDER/gpus_after.txt" 2>&1
}

finish() {
  local code=$?
  trap - EXIT INT TERM
  if [[ -n $RUNNING ]]; then
    kill -INT "$RUNNING" 2> /dev/null
    wait "$RUNNING"
  fi
  pack
  say "everything is in $FOLDER; exit code $code"
  rm -rf "$SCRATCH"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

nvidia-smi > "$FOLDER/machine.txt" 2>&1
say "tune of $ROOT with $PYTHON, engine with $ENGINE_PYTHON"
