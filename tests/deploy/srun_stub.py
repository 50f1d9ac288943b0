"""Stands in for srun: records how it was called and plays the step's part until it is told to stop.

Behaviour comes from $STUB: `calls/` and `stopped/` are written, `behaviour.json` is read:
{"client_status": int, "client_waits": bool, "ends": [names], "unregistered": [names]}.
"""

import base64
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

STUB = Path(os.environ["STUB"])
BEHAVIOUR = json.loads((STUB / "behaviour.json").read_text())


def registered(role):
    names = {path.stem for path in (STUB / "calls").glob(f"{role}_w*.json")}
    return len(names - set(BEHAVIOUR["unregistered"]))


def etcd_answer(path, body):
    asked = json.loads(body)
    key = base64.b64decode(asked["key"]).decode()
    role = {"tensorrt_llm": "prefill", "tensorrt_llm_next": "decode"}[key.split("/")[2]]
    assert key.endswith("/generate:")
    assert asked["count_only"] is True
    count = registered(role)
    return {"header": {}} | ({"count": str(count)} if count else {})


def frontend_answer(path, body):
    if path == "/v1/models":
        listed = registered("prefill") and registered("decode")
        return {"object": "list", "data": [{"id": BEHAVIOUR["model"]}] if listed else []}
    found = []
    for component, role in (("prefill", "prefill"), ("backend", "decode")):
        for _ in range(registered(role)):
            found += [
                {"component": component, "endpoint": "generate"},
                {"component": component, "endpoint": "clear_kv_blocks"},
            ]
    return {"status": "healthy", "instances": found}


def serve(port, answer):
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                more = connection.recv(65536)
                if not more:
                    break
                data += more
            if not data:
                continue
            head, _, body = data.partition(b"\r\n\r\n")
            sizes = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            while sizes and len(body) < int(sizes[0].split(b":")[1]):
                body += connection.recv(65536)
            text = json.dumps(answer(head.split()[1].decode(), body)).encode()
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


def main():
    arguments = sys.argv[1:]
    options = []
    while arguments and arguments[0].startswith("-"):
        options.append(arguments.pop(0))
    name = next(option for option in options if option.startswith("--job-name=")).partition("=")[2]

    def end(*_):
        (STUB / "stopped" / name).touch()
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)
    record = {"options": options, "command": arguments, "environment": dict(os.environ), "pid": os.getpid()}
    temporary = STUB / "calls" / f"{name}.tmp"
    temporary.write_text(json.dumps(record))
    temporary.replace(temporary.with_suffix(".json"))
    if name in BEHAVIOUR["ends"]:
        log = next(option for option in options if option.startswith("--output=")).partition("=")[2]
        Path(log).write_text("out of memory, says the engine\n")
        return 0
    if name == "client" and not BEHAVIOUR["client_waits"]:
        return BEHAVIOUR["client_status"]
    ports = BEHAVIOUR["ports"]
    if name in ("nats", "etcd", "frontend"):
        serve(ports[name], {"nats": None, "etcd": etcd_answer, "frontend": frontend_answer}[name])
    while True:
        time.sleep(60)


sys.exit(main())
