"""Stand in for every program of a deployment: stub_dynamo.py STATE PROGRAM ARGUMENTS...

It uses the standard library only. STATE/behaviour.json: {"unregistered": [roles of workers that never
register], "deaf": [roles that ignore SIGTERM]}. Every rank of a worker prints one line of JSON with the
environment it was started with. Rank 0 registers as a file in STATE/registered/ADDRESS OF ITS ETCD and counts
as long as it lives.
"""

import base64
import json
import os
import signal
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path

from dynamo_http import DynamoHandler, one_token_stream, send_work

STATE, PROGRAM, ARGUMENTS = Path(sys.argv[1]), Path(sys.argv[2]).name, sys.argv[3:]
BEHAVIOUR = json.loads((STATE / "behaviour.json").read_text())
ETCD = os.environ.get("ETCD_ENDPOINTS", "")
COUNTS = {"requests": 0}
RANK = ("SLURM_PROCID", "PMIX_RANK", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURMD_NODENAME")
PRINTED = (*RANK, "CUDA_VISIBLE_DEVICES", "DISAGGREGATION_MODE", "HEAD_NODE_IP")


def option(name):
    return ARGUMENTS[ARGUMENTS.index(name) + 1]


def registered(etcd, role):
    """Return what the living workers of a role wrote when they registered with an etcd."""
    paths = sorted((STATE / "registered" / etcd).glob(f"{role}-*"))
    return [json.loads(p.read_text()) for p in paths if Path("/proc", p.name.split("-")[1]).exists()]


def count(key):
    """Answer as etcd how many workers are registered below instances/dynamo/COMPONENT/."""
    component = base64.b64decode(key).decode().split("/")[2]
    etcd = option("--advertise-client-urls").split("//")[1]
    workers = registered(etcd, "prefill") + registered(etcd, "decode")
    return json.dumps({"count": sum(worker["component"] == component for worker in workers)})


class Handler(DynamoHandler):
    """Serve etcd's and the frontend's interfaces and those of the workers."""

    def request_counts(self):
        return COUNTS["requests"], 0

    def served_models(self):
        workers = registered(ETCD, "decode") if registered(ETCD, "prefill") else []
        return [worker["model"] for worker in workers]

    def components(self):
        return ["prefill"] * len(registered(ETCD, "prefill")) + ["backend"] * len(registered(ETCD, "decode"))

    def count_work(self):
        COUNTS["requests"] += 1

    def do_POST(self):
        request = self.read_request()
        self.answer(count(request["key"]) if "range_end" in request else self.completion(request))

    def completion(self, request):
        turn = COUNTS["requests"]
        COUNTS["requests"] += 1
        for role in ("prefill", "decode"):
            workers = registered(ETCD, role)
            if address := workers[turn % len(workers)]["address"]:
                send_work(address)
        return one_token_stream(request)


def serve(host, port):
    ThreadingHTTPServer.request_queue_size = 256
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


def register(role, address):
    """Register a worker. In mid 2025 its component shows which role receives a request first: either may."""
    first = os.environ.get("DISAGGREGATION_STRATEGY", "").startswith(role)
    names = [name for name in ("--model-name", "--served-model-name") if name in ARGUMENTS]
    entry = {"address": address, "model": option(names[0])}
    entry["component"] = "tensorrt_llm" if first else "tensorrt_llm_next"
    path = STATE / "registered" / ETCD / f"{role}-{os.getpid()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"new-{os.getpid()}").write_text(json.dumps(entry))
    path.with_name(f"new-{os.getpid()}").rename(path)


def worker(role):
    print(json.dumps({name: os.environ.get(name) for name in PRINTED}), flush=True)
    if role in BEHAVIOUR["deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    port = os.environ.get("DYN_SYSTEM_PORT")
    if os.environ.get("SLURM_PROCID", "0") == "0" and role not in BEHAVIOUR["unregistered"]:
        register(role, f"{os.environ['DYN_SYSTEM_HOST']}:{port}" if port else None)
    if port:
        serve(os.environ["DYN_SYSTEM_HOST"], port)
    signal.pause()


def main():
    if PROGRAM == "etcd":
        serve(*option("--listen-client-urls").split("//")[1].rsplit(":", 1))
    if PROGRAM == "nats-server":
        serve(option("-a") if "-a" in ARGUMENTS else "", option("-p"))
    if "dynamo.frontend" in ARGUMENTS:
        serve(option("--http-host") if "--http-host" in ARGUMENTS else "", option("--http-port"))
    worker(option("--disaggregation-mode"))


main()
