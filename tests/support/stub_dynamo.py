"""Stands in for every program of a deployment: stub_dynamo.py STATE PROGRAM ARGUMENTS... Standard library.

STATE/behaviour.json: {"unregistered": [roles of workers that never register], "deaf": [roles that ignore
SIGTERM]}. A worker's rank prints one line of JSON: what it was started with. Rank 0 registers as a file in
STATE/registered/ADDRESS OF ITS ETCD and counts as long as it lives.
"""

import base64
import json
import os
import signal
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STATE, PROGRAM, ARGUMENTS = Path(sys.argv[1]), Path(sys.argv[2]).name, sys.argv[3:]
BEHAVIOUR = json.loads((STATE / "behaviour.json").read_text())
ROOM = os.environ.get("ETCD_ENDPOINTS", "")
COUNTS = {"requests": 0}
RANK = ("SLURM_PROCID", "PMIX_RANK", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURMD_NODENAME")
GIVEN = (*RANK, "CUDA_VISIBLE_DEVICES", "DISAGGREGATION_MODE", "HEAD_NODE_IP")


def option(name):
    return ARGUMENTS[ARGUMENTS.index(name) + 1]


def registered(room, role):
    """What the living workers of a role wrote when they registered in `room`."""
    paths = sorted((STATE / "registered" / room).glob(f"{role}-*"))
    return [json.loads(p.read_text()) for p in paths if Path("/proc", p.name.split("-")[1]).exists()]


def count(key):
    """etcd's answer to how many workers are registered below instances/dynamo/COMPONENT/."""
    component = base64.b64decode(key).decode().split("/")[2]
    room = option("--advertise-client-urls").split("//")[1]
    found = registered(room, "prefill") + registered(room, "decode")
    return json.dumps({"count": sum(worker["component"] == component for worker in found)})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/metrics":
            self.answer(
                f"# TYPE dynamo_component_requests_total counter\n"
                f'dynamo_component_requests_total{{dynamo_endpoint="generate"}} {COUNTS["requests"]}\n'
                f'dynamo_component_inflight_requests{{dynamo_endpoint="generate"}} 0\n'
            )
        elif self.path == "/v1/models":
            served = registered(ROOM, "decode") if registered(ROOM, "prefill") else []
            self.answer(json.dumps({"data": [{"id": worker["model"]} for worker in served]}))
        elif self.path == "/health":
            names = ["prefill"] * len(registered(ROOM, "prefill"))
            names += ["backend"] * len(registered(ROOM, "decode"))
            self.answer(json.dumps({"instances": [{"component": n, "endpoint": "generate"} for n in names]}))
        else:
            COUNTS["requests"] += 1
            self.answer("")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(count(asked["key"]) if "range_end" in asked else self.completion(asked))

    def completion(self, asked):
        turn = COUNTS["requests"]
        COUNTS["requests"] += 1
        for role in ("prefill", "decode"):
            workers = registered(ROOM, role)
            if address := workers[turn % len(workers)]["address"]:
                urllib.request.urlopen(f"http://{address}/work", timeout=5).close()
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": asked["max_tokens"]}
        events = [{"choices": [{"text": "a"}]}, {"choices": [], "usage": usage}]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        return body + "data: [DONE]\n\n"

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def serve(host, port):
    ThreadingHTTPServer.request_queue_size = 256
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


def register(role, address):
    """In mid 2025 the component tells who is asked first, and either role may be."""
    first = os.environ.get("DISAGGREGATION_STRATEGY", "").startswith(role)
    names = [name for name in ("--model-name", "--served-model-name") if name in ARGUMENTS]
    said = {"address": address, "model": option(names[0])}
    said["component"] = "tensorrt_llm" if first else "tensorrt_llm_next"
    path = STATE / "registered" / ROOM / f"{role}-{os.getpid()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"new-{os.getpid()}").write_text(json.dumps(said))
    path.with_name(f"new-{os.getpid()}").rename(path)


def worker(role):
    print(json.dumps({name: os.environ.get(name) for name in GIVEN}), flush=True)
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
