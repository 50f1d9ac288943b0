
# Services, workers and frontends of a deployment of Dynamo, then client.sh. tune wrote this and is not needed to run it.
# Submit it from its folder, which every node sees: sbatch job.sbatch. What it writes is in run-JOBID.
# shellcheck disable=SC2016 # commands of other shells stand in single quotes
set -uo pipefail
set -m # background processes get SIGINT
PLAN_DIR=${SLURM_SUBMIT_DIR:?found no job; submit this script with sbatch from its folder}
RAW_DIR=$PLAN_DIR/run-$SLURM_JOB_ID
SCRATCH_DIR=$RAW_DIR/scratch
mkdir -p "$RAW_DIR/logs" "$SCRATCH_DIR/discovery"

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
addresses=()
for host in "${hosts[@]}"; do
    configured=$(scontrol --oneliner show node "$host" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
    addresses+=("$(getent ahostsv4 "${configured:-$host}" | awk '{print $1; exit}')")
done
# A host may know its own name as a loopback address, which means another host to every other node.
if [[ ${addresses[0]} == 127.* && ${addresses[-1]} != 127.* ]]; then
    addresses[0]=$(hostname -I | awk '{print $1}')
fi

kept=()
for name in @KEPT@; do
    [[ -v $name ]] && kept+=("$name=${!name}")
done

declare -A servers=()

say() { printf '%(%T)T %s\n' -1 "$*" >&2; }

fail() {
    say "$*; logs are in $RAW_DIR/logs"
    exit 1
}

# at INDEX: the process that is started next has its first node there.
at() {
    NODE=${hosts[$1]} NODE_IP=${addresses[$1]}
    export NODE NODE_IP
}

# nodelist INDEX,INDEX,...
nodelist() {
    local indices index names=()
    IFS=, read -ra indices <<< "$1"
    for index in "${indices[@]}"; do names+=("${hosts[index]}"); done
    (IFS=, && echo "${names[*]}")
}

# step NAME VARIABLES COMMAND...: start a server. VARIABLES are passed on to it from this job, - for none.
step() {
    local name=$1 passed=() variable
    for variable in ${2//[,-]/ }; do
        [[ -v $variable ]] && passed+=("$variable=${!variable}")
    done
    shift 2
    env -i "${kept[@]}" ${passed[@]+"${passed[@]}"} "$@" > "$RAW_DIR/logs/${NODE}_$name.out" 2>&1 &
    servers[$!]=$name
}

# alive: end the job where a server has ended.
alive() {
    local pid
    for pid in "${!servers[@]}"; do
        kill -0 "$pid" 2> /dev/null || fail "${servers[$pid]} has ended"
    done
}

# await_port ADDRESS PORT
await_port() {
    until (: < "/dev/tcp/$1/$2") 2> /dev/null; do
        alive
        ((SECONDS < @READY_S@)) || fail "nothing listens on $1:$2 after @READY_S@ s"
        sleep 0.5
    done
}

# await_ready COMMAND...: wait until every worker is registered.
await_ready() {
    until "$@" > "$RAW_DIR/ready.out" 2>&1; do
        alive
        ((SECONDS < @READY_S@)) || fail "not ready after @READY_S@ s: $(tail -n 1 "$RAW_DIR/ready.out")"
        sleep 2
    done
    say "ready: $(tail -n 1 "$RAW_DIR/ready.out")"
}

# await_client: wait for the process that was started last; the servers have to live as long.
await_client() {
    local client=$!
    unset "servers[$client]"
    while kill -0 "$client" 2> /dev/null; do
        alive
        sleep 1
    done
    wait "$client"
}

stop() {
    local pid end=$((SECONDS + @STOP_S@))
    trap '' TERM INT USR2
    for pid in "${!servers[@]}"; do kill -INT "$pid" 2> /dev/null; done
    for pid in "${!servers[@]}"; do
        while kill -0 "$pid" 2> /dev/null && ((SECONDS < end)); do sleep 0.2; done
        kill -TERM "$pid" 2> /dev/null
    done
    wait
    rm -rf "$SCRATCH_DIR"
}
trap stop EXIT
trap 'say "stopped before its end"; exit 143' TERM INT USR2

