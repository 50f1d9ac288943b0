"""Measure what the load client adds to p99 TTFT, at 1, 2 and 4 times the token rate of the published run.

    python benchmarks/client_overhead.py [--duration-s 40] [--repeats 3]

A server on loopback streams one token an event, as an engine with stream_interval 1 does, and stamps when
each request arrived and when it wrote the first token. Added time = what the client recorded, less what the
server recorded: LoadGen's wake-up, sending, and the way of the first token up to the stamp. Requests count
from the time at which the number of streaming answers is at its highest. Client and server share the machine:
on a busy one the added times are waits for a core. `load` is the load average as a run begins, `hog` the
fraction of the machine's CPU time that others took during it (processes, or the host). CPU time per token is
the client's own, its start included.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from machine import busy_s, children_cpu_s, cpus

from tune.client.client_settings import ClientSettings
from tune.client.prompts import Prompts
from tune.client.schedule import draw_schedule
from tune.records.requests import read_requests

DEFAULT_TPS = 9900.0
"""Output tokens/s of the published run at 15.75 QPS. Source: MLPerf Inference v5.1, GB200-NVL72 (Dynamo)."""

PROMPT_TOKENS, ANSWER_TOKENS = 9400, 630
"""Means of the benchmark's prompts and answers."""

FIRST_TOKEN_S, TOKEN_S = 0.2, 0.02
_ANSWER_S = FIRST_TOKEN_S + ANSWER_TOKENS * TOKEN_S
_EVENT = json.dumps(
    {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": "m", "usage": None,
     "choices": [{"index": 0, "text": " token", "logprobs": None, "finish_reason": None}]}
).encode()  # fmt: skip


def _chunk(event: bytes) -> bytes:
    data = b"data: " + event + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_TOKEN = _chunk(_EVENT)


class Answerer(asyncio.Protocol):
    """Serve one request of one connection with as little Python a token as possible."""

    stamps: dict[bytes, tuple[int, int]]

    def __init__(self, stamps: dict[bytes, tuple[int, int]]) -> None:
        self.stamps, self._got, self._length = stamps, bytearray(), -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._length < 0 and b"\r\n\r\n" in self._got:
            head, _, _ = bytes(self._got).partition(b"\r\n\r\n")
            if head.startswith(b"GET"):
                body = b'{"data":[{"id":"m"}]}'
                self._transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                return
            found = re.search(rb"(?i)content-length: *(\d+)", head)
            assert found, head
            self._length = len(head) + 4 + int(found[1])
        if 0 <= self._length <= len(self._got):
            self._begin(time.monotonic_ns())

    def _begin(self, arrived_ns: int) -> None:
        body = bytes(self._got)
        tokens = int(re.search(rb'"max_tokens":(\d+)', body)[1])  # type: ignore[index]
        prompt = body[body.index(b'"prompt":[') + 10 :][:60]
        self._transport.write(_HEAD)
        loop = asyncio.get_running_loop()
        loop.call_later(FIRST_TOKEN_S, self._first, prompt, arrived_ns, tokens)

    def _first(self, prompt: bytes, arrived_ns: int, tokens: int) -> None:
        self.stamps[prompt] = (arrived_ns, time.monotonic_ns())
        self._transport.write(_TOKEN)
        self._next(asyncio.get_running_loop().time() + TOKEN_S, tokens - 1, tokens)

    def _next(self, due_s: float, left: int, tokens: int) -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(due_s, self._token, due_s, left, tokens)

    def _token(self, due_s: float, left: int, tokens: int) -> None:
        if self._transport.is_closing():
            return
        if left > 0:
            self._transport.write(_TOKEN)
            self._next(due_s + TOKEN_S, left - 1, tokens)
            return
        usage = b'{"choices":[],"usage":{"completion_tokens":%d}}' % tokens
        self._transport.write(_chunk(usage) + _chunk(b"[DONE]") + b"0\r\n\r\n")


def serve(pipe: Connection) -> None:
    """Serve until a line arrives through the pipe; then send the stamps and the CPU seconds used."""
    gc.freeze()
    gc.disable()  # a full collection walks all that the parent imported: 80 ms in which no stamp is true
    stamps: dict[bytes, tuple[int, int]] = {}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Answerer(stamps), "127.0.0.1", 0, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        stop = asyncio.Event()
        loop.add_reader(pipe.fileno(), stop.set)
        await stop.wait()
        loop.remove_reader(pipe.fileno())

    asyncio.run(main())
    pipe.send((stamps, time.process_time()))


def client_settings(port: int, times: float, duration_s: float, lengths_csv: Path) -> ClientSettings:
    lengths_csv.write_text("input_tokens,output_tokens\n" + f"{PROMPT_TOKENS},{ANSWER_TOKENS}\n" * 1000)
    lengths = {
        "kind": "fixed",
        "mean_tokens": float(PROMPT_TOKENS),
        "sd_tokens": 0.0,
        "min_tokens": 1,
        "max_tokens": 20000,
    }
    dataset = {
        "name": "benchmark", "samples": 1000, "longest_prompt_tokens": 20000, "longest_answer_tokens": 2000,
        "inputs": lengths, "outputs": {"mean_tokens": float(ANSWER_TOKENS), "cap_frac": 0.0},
        "path": str(lengths_csv),
    }  # fmt: skip
    return ClientSettings.model_validate(
        {
            "endpoint_urls": (f"http://127.0.0.1:{port}/v1",), "served_model_name": "m",
            "load": {
                "target_qps": times * DEFAULT_TPS / ANSWER_TOKENS, "min_duration_s": duration_s,
                "min_queries": 1, "concatenate_permutation": False, "seed": "mlperf", "shuffle_seed": 0,
                "client_concurrency": 2048, "request_timeout_s": 600.0, "response_timeout_s": 600.0,
                "dataset": dataset,
            },
            "slo": {"ttft_p99_s": 4.5, "tpot_p99_s": 0.08}, "max_seq_len": 20192,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Hold one run of the client.

    `added_*`: what the client recorded less what the server recorded, over `counted` requests; the p99 of few
    is the worst one. `p99_gap_ms`: the client's p99 less the server's. `hog_frac`: CPU time of other
    processes / (wall time x CPUs).
    """

    load: float
    hog_frac: float
    output_tps: float
    errors: float
    counted: float
    added_p50_ms: float
    added_p99_ms: float
    p99_gap_ms: float
    client_cpu_us: float
    server_cpu_us: float

    def line(self, label: str) -> str:
        """Render the run as a line of the table."""
        return (
            f"{label:>10} {self.load:5.1f} {self.hog_frac:5.0%} {self.output_tps:9.0f} {self.errors:7.0f} "
            f"{self.counted:8.0f} {self.added_p50_ms:8.2f} {self.added_p99_ms:8.2f} {self.p99_gap_ms:14.2f} "
            f"{self.client_cpu_us:8.1f} {self.server_cpu_us:8.1f}"
        )


_TITLE = """
                          output                    added to TTFT, ms   p99 client   CPU us a token
      rate  load   hog  tokens/s  errors  counted      p50      p99  - p99 server   client   server"""


def measure(times: float, duration_s: float) -> Run:
    """Run the client at `times` the reference rate; queries arrive for `duration_s`."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    load, before, busy_before_s = os.getloadavg()[0], children_cpu_s(), busy_s()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        settings = client_settings(port, times, duration_s, Path(folder, "lengths.csv"))
        schedule = draw_schedule(settings)
        path = Path(folder, "client.json")
        path.write_text(settings.model_dump_json(exclude={"endpoint_urls"}))
        client = [sys.executable, "-m", "tune.client", str(path), "--endpoint", settings.endpoint_urls[0]]
        subprocess.run([*client, "--out", folder], check=True, stderr=subprocess.DEVNULL)
        log = read_requests(Path(folder, "requests.npz"))
    worked_s, wall_s = busy_s() - busy_before_s, time.monotonic() - began_s
    client_cpu_s = children_cpu_s() - before
    ours.send("stop")
    stamps, server_cpu_s = ours.recv()
    server.join()
    prompts = Prompts(settings.served_model_name, settings.load, schedule)
    seen = [stamps[_key(prompts.body(position))] for position in range(len(schedule))]
    server_ns = np.array([wrote - arrived for arrived, wrote in seen])
    recorded_ns = log.first_token_ns - log.scheduled_ns
    steady = log.scheduled_ns > _ANSWER_S * 1e9
    recorded_ns, server_ns = recorded_ns[steady], server_ns[steady]
    added_ms = (recorded_ns - server_ns) * 1e-6
    tokens = int(log.output_tokens.sum())
    return Run(
        load,
        max(0.0, worked_s - client_cpu_s - server_cpu_s) / wall_s / cpus(),
        tokens / (log.done_ns.max() * 1e-9 - _ANSWER_S),
        int((log.error != "").sum()),
        int(steady.sum()),
        float(np.median(added_ms)),
        float(np.percentile(added_ms, 99)),
        float(np.percentile(recorded_ns, 99) - np.percentile(server_ns, 99)) * 1e-6,
        client_cpu_s / tokens * 1e6,
        server_cpu_s / tokens * 1e6,
    )


def _key(body: bytes) -> bytes:
    return body[body.index(b'"prompt":[') + 10 :][:60]


def main() -> None:
    """Run the client at the rates that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--duration-s", type=float, default=40.0, help="how long queries arrive, over 12.8")
    parser.add_argument("--times", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each rate; the medians follow them")
    options = parser.parse_args()
    print(
        f"{cpus()} CPUs; {ANSWER_TOKENS} tokens an answer, {TOKEN_S * 1e3:g} ms each",
        end="",
    )
    print(_TITLE, flush=True)
    for times in options.times:
        runs = []
        for _ in range(options.repeats):
            runs.append(measure(times, options.duration_s))
            print(runs[-1].line(f"{times:g}x"), flush=True)
        medians = (statistics.median(getattr(run, field.name) for run in runs) for field in fields(Run))
        print(Run(*medians).line("median"), flush=True)


if __name__ == "__main__":
    main()
