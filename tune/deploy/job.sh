# Starts every process of the plan as a step of its own, waits until all workers are registered, runs the load
# client and stops everything: after success, an error, a signal, or the end of any process before the client's.
#
#   cd PLAN_FOLDER && sbatch job.sbatch
#
# PLAN_DIR (default: where sbatch ran) and RAW_DIR (default: raw/<job> beside the plan) may be set from outside,
# HEAD_NODE_IP where node 0's name does not resolve. Needs bash 4.2, python3 and tune's client on node 0.
# Exit code: the client's, or 3 when the deployment failed.
set -euo pipefail

PLAN_DIR=${PLAN_DIR:-${SLURM_SUBMIT_DIR:-$PWD}}
RAW_DIR=${RAW_DIR:-$PLAN_DIR/../raw/$SLURM_JOB_ID}
SERVICES_DEADLINE_S=${SERVICES_DEADLINE_S:-120}
READY_DEADLINE_S=${READY_DEADLINE_S:-3600}
STOP_DEADLINE_S=${STOP_DEADLINE_S:-30}
POLL_S=${POLL_S:-5}
PIDS=()
NAMES=()
LOGS=()

say() { printf '%(%H:%M:%S)T %s\n' -1 "$*"; }

fail() {
  say "failed: $*" >&2
  exit 3
}

bind_nodes() {
  mapfile -t NODES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  if ((${#NODES[@]} < NODES_NEEDED)); then
    fail "found ${#NODES[@]} nodes in '$SLURM_JOB_NODELIST', expected $NODES_NEEDED; submit with --nodes=$NODES_NEEDED"
  fi
  HEAD_NODE=${NODES[0]}
  HEAD_NODE_IP=${HEAD_NODE_IP:-$(address_of_head)}
  [[ -n $HEAD_NODE_IP ]] || fail "no address found for $HEAD_NODE; set HEAD_NODE_IP"
  export HEAD_NODE HEAD_NODE_IP
}

# Debian maps a host's own name to 127.0.1.1, which no other node can reach.
address_of_head() {
  local address
  address=$(getent ahostsv4 "$HEAD_NODE" | awk 'NR == 1 { print $1 }') || true
  if [[ -z $address || $address == 127.* ]]; then
    address=$(hostname -I | awk '{ print $1 }') || true
  fi
  printf '%s' "$address"
}

# A step must not inherit the batch step's own shape: task counts, CPU masks, PMI rank.
forget_batch_step() {
  local name
  for name in $(compgen -e); do
    case $name in
      SLURM_CONF | SLURM_JOB_ID | SLURM_JOBID | SLURM_JOB_NODELIST | SLURM_JOB_NUM_NODES) ;;
      SLURM_CLUSTER_NAME | SLURM_RESTART_COUNT) ;;
      SLURM_* | SRUN_* | SBATCH_* | PMI_* | PMIX_*) unset "$name" ;;
    esac
  done
}

# launch NAME LOG NODE_INDICES TASKS [srun options] -- COMMAND...
# --overlap: steps share nodes; --overcommit: where the job was given fewer CPUs than a worker has ranks.
launch() {
  local name=$1 log=$RAW_DIR/$2 tasks=$4 options=() hosts='' index indices
  IFS=, read -ra indices <<<"$3"
  shift 4
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  for index in "${indices[@]}"; do
    hosts+=${hosts:+,}${NODES[index]}
  done
  srun --overlap --overcommit --job-name="$name" --nodes="${#indices[@]}" --nodelist="$hosts" --ntasks="$tasks" \
    --ntasks-per-node="$((tasks / ${#indices[@]}))" --kill-on-bad-exit=1 --output="$log" \
    ${options[@]+"${options[@]}"} "$@" &
  LAUNCHED=$!
  say "started $name on $hosts"
}

# serve: as launch, in the image where there is one, and expected to outlive the client
serve() {
  launch "${@:1:4}" ${CONTAINER[@]+"${CONTAINER[@]}"} "${@:5}"
  PIDS+=("$LAUNCHED")
  NAMES+=("$1")
  LOGS+=("$RAW_DIR/$2")
}

# Not `jobs -r`: after a signal has cut a `wait` short, bash may list an ended job as running for ever.
running() { kill -0 "$@" 2>/dev/null; }

# Slurm reports exit code 0 for a step whose node died under --no-kill: any step that ended has failed.
all_serve() {
  local i
  for i in "${!PIDS[@]}"; do
    if ! running "${PIDS[i]}"; then
      tail -n 20 "${LOGS[i]}" >&2 || true
      fail "${NAMES[i]} ended before the client did; its log is ${LOGS[i]}"
    fi
  done
}

pause() {
  sleep "$POLL_S" &
  wait "$!"
}

# wait_until SECONDS WHAT COMMAND...
wait_until() {
  local deadline=$((SECONDS + $1)) seconds=$1 what=$2
  shift 2
  until "$@"; do
    all_serve
    ((SECONDS < deadline)) || fail "$what within $seconds s: not so; the logs are in $RAW_DIR/logs"
    pause
  done
  say "$what"
}

ready() {
  local status=0 state
  state=$(ask_ready) || status=$?
  [[ $state == "${READY_STATE:-}" ]] || say "$state"
  READY_STATE=$state
  return "$status"
}

port_open() { (: >"/dev/tcp/$HEAD_NODE_IP/$1") 2>/dev/null; }

run_client() {
  local status=0
  start_client
  while running "$LAUNCHED"; do
    all_serve
    pause
  done
  wait "$LAUNCHED" || status=$?
  say "client ended with exit code $status"
  exit "$status"
}

stop() {
  local status=$? deadline=$((SECONDS + STOP_DEADLINE_S)) pids
  trap - EXIT
  trap '' INT TERM HUP
  pids=$(jobs -p)
  if [[ -n $pids ]]; then
    # shellcheck disable=SC2086
    kill -TERM $pids 2>/dev/null || true
    # shellcheck disable=SC2086
    while running $pids && ((SECONDS < deadline)); do
      sleep 0.2
    done
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
  fi
  say "stopped, exit code $status"
  exit "$status"
}

main() {
  [[ -f $PLAN_DIR/client.json ]] || fail "no client.json in $PLAN_DIR; submit from the plan's folder or set PLAN_DIR"
  PLAN_DIR=$(cd "$PLAN_DIR" && pwd)
  mkdir -p "$RAW_DIR/logs"
  RAW_DIR=$(cd "$RAW_DIR" && pwd)
  trap stop EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  bind_nodes
  printf '%s\n' "${NODES[@]}" >"$RAW_DIR/nodes"
  forget_batch_step
  . "$PLAN_DIR/environment"
  use_container
  start_services
  start_workers
  wait_until "$READY_DEADLINE_S" "all workers are registered" ready
  run_client
}
