from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tune.engines.dynamo.counters import FRONTEND_IN_FLIGHT, IN_FLIGHT, REQUESTS
from tune.manifest.process import Process
from tune.orchestrator.launcher import NodeAddresses
from tune.orchestrator.scraper import Scraper
from tune.orchestrator.worker_metrics import request_counts
from tune.records.scrapes import METRICS_FILE, read_metrics

NODES = NodeAddresses(("no-such-host", "nor-this"), ("127.0.0.1",) * 2)
TEXT = """\
dynamo_component_requests_total{dynamo_endpoint="generate"} 7
dynamo_component_requests_total{dynamo_endpoint="clear_kv_blocks"} 2
dynamo_component_inflight_requests{dynamo_endpoint="generate"} 3
"""


def worker(name: str, port: int | None, node: int = 0) -> Process:
    return Process(name, "decode", node, (), {}, ("true",), f"logs/{name}.out", (), port)


@pytest.fixture
def port() -> Iterator[int]:
    """Yield a port on which a server answers with TEXT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_counters_cover_requests_of_workers_with_metrics(port: int) -> None:
    workers = [worker("a", port), worker("b", port, node=1), worker("c", None)]
    assert request_counts(workers, NODES, REQUESTS) == {"a": 7.0, "b": 7.0}
    assert request_counts(workers, NODES, IN_FLIGHT) == {"a": 3.0, "b": 3.0}
    assert request_counts(workers, NODES, FRONTEND_IN_FLIGHT) == {}, "an absent metric is no 0"


def test_silent_worker_is_named_with_its_host(port: int) -> None:
    with pytest.raises(OSError, match=r"dead on nor-this: .*refused"):
        request_counts([worker("a", port), worker("dead", 9, node=1)], NODES, REQUESTS)


def test_missed_scrape_is_noted_and_others_are_written(port: int, tmp_path: Path) -> None:
    dead = worker("dead", 9)  # the discard service's port, on which nothing listens here
    with Scraper([dead, worker("a", port), worker("c", None)], NODES, tmp_path / "probe"):
        pass
    scrapes = read_metrics(tmp_path / "probe" / METRICS_FILE)
    assert [scrape.process for scrape in scrapes] == ["dead", "a"] * (len(scrapes) // 2)
    assert {len(scrape.samples) for scrape in scrapes if scrape.process == "dead"} == {0}
    assert {len(scrape.samples) for scrape in scrapes if scrape.process == "a"} == {3}


def test_unwritable_metrics_file_raises(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).mkdir()
    with pytest.raises(IsADirectoryError), Scraper([], NODES, tmp_path):
        pass
