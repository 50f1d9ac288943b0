"""Act as a program of a Dynamo deployment: etcd, NATS, frontend, worker or load client.

Uses the standard library only.

fake_dynamo.py STATE process NAME ROLE PORT acts as the process NAME of a plan. fake_dynamo.py STATE program
PROGRAM ARGUMENT ... acts as the program that a real plan starts with these arguments; a worker's rank then
prints one line of JSON, what it was started with, and rank 0 registers. A script that python3 is started with
is run by the Python of the tests.

A worker registers with a file in STATE/registered/ROOM, which counts as long as the worker lives; ROOM is the
address of its etcd. STATE/began/NAME holds the id of a process that works. STATE/behaviour.json holds, all
optional, where a process is meant by its name or its role:
  says: {name: words} that it prints at its start
  unregistered, deaf, leaves: processes that never register; that ignore SIGTERM; that leave a child behind
  ends: {name: [exit code, last words]}
  one_engine_after: number of requests after which one worker of each role serves all
  late_after, late_s: number of requests after which answers take late_s longer
  silent: whether no request is ever answered
  unready_requests: number of requests to a frontend that are answered by status 503, the first it gets
  refuses_routing: whether a request that names its workers is answered by status 400, as by older frontends
  metrics: {name: /metrics of a process}, in which REQUESTS, IN_FLIGHT and QUEUEING stand for its counts
  client: exit code of the load client, or "waits", as it does by default
  model: name of the served model
As long as STATE/starting exists, no worker registers; it prints that it reads its weights. As long
as the file STATE/holding exists, every worker reports one request in flight; as long as
STATE/queueing exists, every frontend does.
"""

import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STATE, STYLE, ARGUMENTS = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
BEHAVIOUR = json.loads((STATE / "behaviour.json").read_text())
ROOM = os.environ.get("ETCD_ENDPOINTS", "local")
RANK_VARIABLES = ("SLURM_PROCID", "PMIX_RANK", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURMD_NODENAME")
NAMED_VARIABLES = ("UCX_TLS", "HF_TOKEN", "ENROOT_ALLOW_DEV")
REPORTED_VARIABLES = (
    *(*RANK_VARIABLES, *NAMED_VARIABLES),
    *("CUDA_VISIBLE_DEVICES", "DISAGGREGATION_MODE", "HEAD_NODE_IP"),
)
COMPONENTS = {"prefill": "prefill", "decode": "backend", "aggregated": "backend"}
ASKED_BY = {
    "prefill": "prefill_worker_id",
    "decode": "decode_worker_id",
    "aggregated": "backend_instance_id",
}
WORKERS = tuple(COMPONENTS)
LOCK = threading.Lock()
COUNTS = {"requests": 0}
FRONTEND_REQUESTS = itertools.count()
METRICS = """\
# TYPE dynamo_component_requests_total counter
dynamo_component_requests_total{dynamo_endpoint="generate"} REQUESTS
dynamo_component_inflight_requests{dynamo_endpoint="generate"} IN_FLIGHT
dynamo_frontend_inflight_requests QUEUEING
"""


def option(name):
    """Return the argument that follows `name`, empty where there is none."""
    return ARGUMENTS[ARGUMENTS.index(name) + 1] if name in ARGUMENTS else ""


def registered(room, role):
    """Return what the living workers of a role registered in `room`, in order of their names."""
    paths = sorted((STATE / "registered" / room).glob(f"{role}-*"))
    return [json.loads(path.read_text()) for path in paths if lives(path.name.rpartition("-")[2])]


def lives(process):
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def register(name, role, worker):
    """Register `worker`: its address, its model and its component."""
    folder = STATE / "registered" / ROOM
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{role}-{name}-{os.getpid()}", json.dumps(worker | {"id": os.getpid()}))


def write_whole(path, text):
    temporary = path.with_name(f"new-{os.getpid()}")
    temporary.write_text(text)
    temporary.rename(path)


def etcd_count(key):
    """Return etcd's answer to how many workers are registered below instances/dynamo/COMPONENT/."""
    component = base64.b64decode(key).decode().split("/")[2]
    room = option("--advertise-client-urls").split("//")[1]
    workers = [worker for role in WORKERS for worker in registered(room, role)]
    return json.dumps({"count": sum(worker["component"] == component for worker in workers)})


def take_turn(asked):
    """Count a request; return the workers that serve it: those it asks for, else those whose turn it is."""
    with LOCK:
        turn = COUNTS["requests"]
        COUNTS["requests"] += 1
    limit = BEHAVIOUR.get("one_engine_after")
    if limit is not None and turn >= limit:
        turn = 0
    pools = {role: pool for role in WORKERS if (pool := registered(ROOM, role))}
    named = {role: asked.get(ASKED_BY[role]) for role in pools if limit is None or turn < limit}
    return [
        next((worker for worker in pool if worker["id"] == named.get(role)), pool[turn % len(pool)])
        for role, pool in pools.items()
    ]


class Handler(BaseHTTPRequestHandler):
    """Answer as etcd, frontend and worker."""

    in_flight_role = False
    queueing_role = False
    metrics = METRICS

    def do_GET(self):
        if self.path == "/metrics":
            in_flight = int(self.in_flight_role and (STATE / "holding").exists())
            queueing = int(self.queueing_role and (STATE / "queueing").exists())
            counts = {"REQUESTS": COUNTS["requests"], "IN_FLIGHT": in_flight, "QUEUEING": queueing}
            text = self.metrics
            for word, number in counts.items():
                text = text.replace(word, str(number))
            self.answer(text)
        elif self.path == "/v1/models":
            served = registered(ROOM, "aggregated")
            if registered(ROOM, "prefill"):
                served = registered(ROOM, "decode")
            served = served or registered(ROOM, "aggregated")
            self.answer(json.dumps({"data": [{"id": worker["model"]} for worker in served]}))
        elif self.path == "/health":
            instances = [
                {"component": COMPONENTS[role], "endpoint": "generate", "instance_id": worker["id"]}
                for role in WORKERS
                for worker in registered(ROOM, role)
            ]
            self.answer(json.dumps({"instances": instances}))
        else:
            with LOCK:
                COUNTS["requests"] += 1
            self.answer("")

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if BEHAVIOUR.get("refuses_routing") and "extra_fields" in request.get("nvext", {}):
            self.send_error(400)
            return
        if "prompt" in request and next(FRONTEND_REQUESTS) < BEHAVIOUR.get("unready_requests", 0):
            self.send_error(503)
            return
        self.answer(etcd_count(request["key"]) if "range_end" in request else completion(request))

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Print a line for each answer, as Dynamo's frontend does."""
        print(f"http response sent {self.path}", flush=True)


def completion(request):
    """Return the streamed answer to a request, after the workers whose turn it is have counted it."""
    if BEHAVIOUR.get("silent"):
        threading.Event().wait()
    late_after = BEHAVIOUR.get("late_after")
    if late_after is not None and COUNTS["requests"] >= late_after:
        time.sleep(BEHAVIOUR["late_s"])
    asked = request.get("nvext", {})
    workers = take_turn(asked)
    for worker in workers:
        if worker["address"]:
            urllib.request.urlopen(f"http://{worker['address']}/work", timeout=30).close()
    usage = {"prompt_tokens": len(request["prompt"]), "completion_tokens": request["max_tokens"]}
    events = [{"choices": [{"text": "a"}]}, {"choices": [], "usage": usage}]
    if "worker_id" in asked.get("extra_fields", ()):
        served_by = {"prefill_worker_id": workers[0]["id"], "decode_worker_id": workers[-1]["id"]}
        events = [event | {"nvext": {"worker_id": served_by}} for event in events]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def listen(host, port):
    ThreadingHTTPServer.request_queue_size = 256
    return ThreadingHTTPServer((host, int(port)), Handler)


def behaves(key, name, role):
    return bool({name, role} & {*BEHAVIOUR.get(key, ())})


def run_process(name, role, port):
    """Act as the process `name` of a plan; return its exit code."""
    if behaves("deaf", name, role):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaves("leaves", name, role):
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print(f"{name} starts", flush=True)
    if name in BEHAVIOUR.get("says", {}):
        print(BEHAVIOUR["says"][name], flush=True)
    if name in BEHAVIOUR.get("ends", {}):
        code, words = BEHAVIOUR["ends"][name]
        print(words, flush=True)
        return code
    if role == "client":
        write_whole(STATE / "began" / name, str(os.getpid()))
        code = BEHAVIOUR.get("client", "waits")
        if code != "waits":
            return code
        signal.pause()
    server = listen("127.0.0.1", port)
    Handler.in_flight_role, Handler.queueing_role = role in WORKERS, role == "frontend"
    metrics = BEHAVIOUR.get("metrics", {})
    Handler.metrics = metrics.get(name, metrics.get(role, METRICS))
    if role in WORKERS and not behaves("unregistered", name, role):
        register(name, role, {"address": f"127.0.0.1:{port}", "model": BEHAVIOUR["model"], "component": role})
    write_whole(STATE / "began" / name, str(os.getpid()))
    server.serve_forever()
    return 0


def run_program(program):
    """Act as `program` with the arguments of a real plan; never returns."""
    if ARGUMENTS[0].endswith(".py"):
        os.execv(sys.executable, [sys.executable, *ARGUMENTS])
    if program == "etcd":
        listen(*option("--listen-client-urls").split("//")[1].rsplit(":", 1)).serve_forever()
    if program == "nats-server":
        listen(option("-a"), option("-p")).serve_forever()
    if "dynamo.frontend" in ARGUMENTS:
        listen(option("--http-host"), option("--http-port")).serve_forever()
    run_rank(option("--disaggregation-mode") or "aggregated")


def run_rank(role):
    """Act as one rank of a worker; never returns.

    In mid 2025 the component says which role receives requests first, and either role may.
    """
    report = {name: os.environ.get(name) for name in REPORTED_VARIABLES}
    report["FROM_SHELL"] = " ".join(sorted(name for name in os.environ if os.environ[name] == "shell"))
    print(json.dumps(report), flush=True)
    if behaves("deaf", role, role):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    host, port = os.environ.get("DYN_SYSTEM_HOST", ""), os.environ.get("DYN_SYSTEM_PORT")
    leads = os.environ.get("SLURM_PROCID", "0") == "0"  # the other ranks of an MPI job serve no port
    server = (
        listen(host, port) if port and leads else None
    )  # before it registers: then its counters are asked
    Handler.in_flight_role = True
    while leads and (STATE / "starting").exists():
        print(f"reading weights, {time.monotonic():.1f}", flush=True)
        time.sleep(0.5)
    if leads and not behaves("unregistered", role, role):
        first = role == "aggregated" or os.environ.get("DISAGGREGATION_STRATEGY", "").startswith(role)
        worker = {
            "address": f"{host or '127.0.0.1'}:{port}" if port else None,
            "model": option("--model-name") or option("--served-model-name"),
            "component": "tensorrt_llm" if first else "tensorrt_llm_next",
        }
        register("worker", role, worker)
    if server:
        server.serve_forever()
    signal.pause()


if STYLE == "process":
    sys.exit(run_process(ARGUMENTS[0], ARGUMENTS[1], int(ARGUMENTS[2])))
run_program(Path(ARGUMENTS.pop(0)).name)
