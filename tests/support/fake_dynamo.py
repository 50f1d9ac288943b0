"""Stand in for one process of a deployment: fake_dynamo.py STATE NAME ROLE PORT. Standard library only.

STATE/behaviour.json says how the process behaves: {"unregistered": [names], "ends": {name: [exit code, last
line]}, "deaf": [names that ignore SIGTERM], "leaves": [names that leave a child], "one_engine_after": number
of requests after which the first engine of each role gets all, or null, "silent": whether requests stay
without response, "late_after": number of requests after which responses take 3 s longer, or null, "holds_s":
seconds after its last request during which a worker still reports one in flight, "peers": {name: port},
"client": "waits" or an exit code}. STATE/began/NAME holds the process id.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

from dynamo_http import DynamoHandler, one_token_stream, send_work

STATE, NAME, ROLE, PORT = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
BEHAVIOUR = json.loads((STATE / "behaviour.json").read_text())
LOCK = threading.Lock()
COUNTS = {"requests": 0, "last_s": 0.0}


def registered(role):
    return sorted(path.name for path in (STATE / "registered").iterdir() if path.name.startswith(role))


def take_turn():
    """Return the prefill and the decode worker whose turn it is."""
    with LOCK:
        turn = COUNTS["requests"]
        COUNTS["requests"] += 1
    limit = BEHAVIOUR["one_engine_after"]
    if limit is not None and turn >= limit:
        turn = 0
    return [names[turn % len(names)] for names in (registered("prefill"), registered("decode"))]


class Handler(DynamoHandler):
    """Serve one process of the deployment."""

    def request_counts(self):
        in_flight = ROLE != "frontend" and time.monotonic() < COUNTS["last_s"] + BEHAVIOUR["holds_s"]
        return COUNTS["requests"], int(in_flight)

    def served_models(self):
        return [BEHAVIOUR["model"]] if registered("prefill") and registered("decode") else []

    def components(self):
        return ["prefill"] * len(registered("prefill")) + ["backend"] * len(registered("decode"))

    def count_work(self):
        with LOCK:
            COUNTS["requests"] += 1
            COUNTS["last_s"] = time.monotonic()

    def do_POST(self):
        request = self.read_request()
        if BEHAVIOUR["silent"]:
            threading.Event().wait()
        late_after = BEHAVIOUR["late_after"]
        if late_after is not None and COUNTS["requests"] >= late_after:
            time.sleep(3)
        for worker in take_turn():
            send_work(f"127.0.0.1:{BEHAVIOUR['peers'][worker]}")
        self.answer(one_token_stream(request))


def main():
    if NAME in BEHAVIOUR["deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if NAME in BEHAVIOUR["leaves"]:
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print(f"{NAME} starts", flush=True)
    if NAME in BEHAVIOUR["ends"]:
        code, last_line = BEHAVIOUR["ends"][NAME]
        print(last_line, flush=True)
        return code
    if ROLE == "client":
        write_pid()
        if BEHAVIOUR["client"] != "waits":
            return BEHAVIOUR["client"]
        signal.pause()
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    if ROLE in ("prefill", "decode") and NAME not in BEHAVIOUR["unregistered"]:
        (STATE / "registered" / NAME).touch()
        if NAME not in BEHAVIOUR["deaf"]:
            signal.signal(signal.SIGTERM, deregister)
    write_pid()
    server.serve_forever()
    return 0


def deregister(*_):
    (STATE / "registered" / NAME).unlink()
    sys.exit(0)


def write_pid():
    temporary = STATE / f"{NAME}.tmp"
    temporary.write_text(str(os.getpid()))
    temporary.rename(STATE / "began" / NAME)


sys.exit(main())
