"""Stands in for one process of a deployment: stand_in.py STATE NAME ROLE PORT. Standard library only.

STATE/behaviour.json says how it behaves: {"unregistered": [names], "ends": {name: [exit code, last words]},
"deaf": [names], "leaves": [names], "one_engine_after": requests or null, "silent": whether no request is
ever answered, "late_after": requests from which on answers take 3 s longer or null, "holds_s": how long
after its last request a worker says that it still holds one, "peers": {name: port}, "client": "waits" or an
exit code}. STATE/began/NAME holds its process id.
"""

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

STATE, NAME, ROLE, PORT = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
BEHAVIOUR = json.loads((STATE / "behaviour.json").read_text())
LOCK = threading.Lock()
COUNTS = {"requests": 0, "last_s": 0.0}


def registered(role):
    return sorted(path.name for path in (STATE / "registered").iterdir() if path.name.startswith(role))


def take_turn():
    """The prefill and the decode worker whose turn it is."""
    with LOCK:
        turn = COUNTS["requests"]
        COUNTS["requests"] += 1
    limit = BEHAVIOUR["one_engine_after"]
    if limit is not None and turn >= limit:
        turn = 0
    return [names[turn % len(names)] for names in (registered("prefill"), registered("decode"))]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/metrics":
            held = int(ROLE != "frontend" and time.monotonic() < COUNTS["last_s"] + BEHAVIOUR["holds_s"])
            self.answer(
                f"# TYPE dynamo_component_requests_total counter\n"
                f'dynamo_component_requests_total{{dynamo_endpoint="generate"}} {COUNTS["requests"]}\n'
                f'dynamo_component_inflight_requests{{dynamo_endpoint="generate"}} {held}\n'
            )
        elif self.path == "/v1/models":
            served = registered("prefill") and registered("decode")
            self.answer(json.dumps({"data": [{"id": BEHAVIOUR["model"]}] if served else []}))
        elif self.path == "/health":
            component = {"prefill": "prefill", "decode": "backend"}
            found = [
                {"component": component[role], "endpoint": "generate"}
                for role in component
                for _ in registered(role)
            ]
            self.answer(json.dumps({"instances": found}))
        else:
            with LOCK:
                COUNTS["requests"] += 1
                COUNTS["last_s"] = time.monotonic()
            self.answer("")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if BEHAVIOUR["silent"]:
            threading.Event().wait()
        late_after = BEHAVIOUR["late_after"]
        if late_after is not None and COUNTS["requests"] >= late_after:
            time.sleep(3)
        for worker in take_turn():
            urllib.request.urlopen(f"http://127.0.0.1:{BEHAVIOUR['peers'][worker]}/work", timeout=5).close()
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": asked["max_tokens"]}
        events = [{"choices": [{"text": "a"}]}, {"choices": [], "usage": usage}]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        self.answer(body + "data: [DONE]\n\n")

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def main():
    if NAME in BEHAVIOUR["deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if NAME in BEHAVIOUR["leaves"]:
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print(f"{NAME} starts", flush=True)
    if NAME in BEHAVIOUR["ends"]:
        code, words = BEHAVIOUR["ends"][NAME]
        print(words, flush=True)
        return code
    if ROLE == "client":
        began()
        if BEHAVIOUR["client"] != "waits":
            return BEHAVIOUR["client"]
        signal.pause()
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    if ROLE in ("prefill", "decode") and NAME not in BEHAVIOUR["unregistered"]:
        (STATE / "registered" / NAME).touch()
        if NAME not in BEHAVIOUR["deaf"]:
            signal.signal(signal.SIGTERM, leave)
    began()
    server.serve_forever()
    return 0


def leave(*_):
    (STATE / "registered" / NAME).unlink()
    sys.exit(0)


def began():
    temporary = STATE / f"{NAME}.tmp"
    temporary.write_text(str(os.getpid()))
    temporary.rename(STATE / "began" / NAME)


sys.exit(main())
