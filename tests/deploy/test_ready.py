from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tune.deploy.ready import (
    count_in_health,
    expectation,
    lists_model,
    main,
    parse_arguments,
    query_registration,
)

MODELS = json.dumps({"data": [{"id": "llama"}]})
HEALTH = json.dumps(
    {
        "instances": [
            *({"component": "prefill", "endpoint": "generate"} for _ in range(2)),
            {"component": "prefill", "endpoint": "clear_kv_blocks"},
            {"component": "backend", "endpoint": "generate"},
        ]
    }
)


class Server:
    """Answer each path with the status and the text that are set for it."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str]] = {"/v1/models": (200, MODELS), "/health": (200, HEALTH)}
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text = answers.get(self.path, (404, ""))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def ask(self, *expect: str, etcd: bool = False, beside: Server | None = None) -> int:
        """Ask this frontend, and the one `beside` it."""
        arguments = ["--model", "llama", "--frontend", self.url, *(("--etcd", self.url) if etcd else ())]
        arguments += ["--frontend", beside.url] if beside else []
        return main(arguments + [part for text in expect for part in ("--expect", text)])


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as made:
        yield made


@contextmanager
def running_server() -> Iterator[Server]:
    yield (made := Server())
    made.http.shutdown()
    made.http.server_close()


@pytest.mark.parametrize(
    ("path", "text", "state"),
    [
        ("/v1/models", MODELS, "prefill 2 of 2, model listed"),
        ("/v1/models", '{"data": []}', "prefill 2 of 2, model not listed"),
        ("/health", '{"instances": []}', "prefill 0 of 2, model listed"),
    ],
)
def test_deployment_is_ready_when_every_frontend_knows_it(
    path: str, text: str, state: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_server() as other:
        other.answers[path] = (200, text)
        assert server.ask("prefill=2", beside=other) == (text != MODELS)
        assert capsys.readouterr().out == f"{state}\n"
        query = parse_arguments(
            ["--model", "llama", "--frontend", server.url, "--frontend", other.url, "--expect", "prefill=2"]
        )
        assert query_registration(query).agreed == ("0 of 2" not in state)


def test_deployment_is_ready_with_model_and_all_workers(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.ask("prefill=2", "backend,tensorrt_llm=1") == 0
    assert capsys.readouterr().out == "prefill 2 of 2, backend/tensorrt_llm 1 of 1, model listed\n"


@pytest.mark.parametrize("expect", ["prefill=3", "backend=2", "decode=1", "clear_kv_blocks=1"])
def test_deployment_is_not_ready_while_one_is_missing(expect: str, server: Server) -> None:
    assert server.ask("prefill=2", expect) == 1


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/models", 200, '{"data": []}'),
        ("/v1/models", 200, '{"data": [{"id": "llama2"}]}'),
        ("/v1/models", 200, "{}"),
        ("/v1/models", 200, "[]"),
        ("/v1/models", 200, ""),
        ("/v1/models", 200, "<html>"),
        ("/v1/models", 503, MODELS),
        ("/health", 200, '{"status": "healthy", "instances": []}'),
        ("/health", 200, '{"message": "No endpoints available", "status": "unhealthy"}'),
        ("/health", 503, HEALTH),
    ],
)
def test_malformed_response_is_not_ready(path: str, status: int, text: str, server: Server) -> None:
    server.answers[path] = (status, text)
    assert server.ask("prefill=2") == 1


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [(200, '{"count": "14"}', 0), (200, '{"count": "13"}', 1), (200, '{"header": {}}', 1), (500, "{}", 1)],
)
def test_workers_are_counted_in_etcd_where_it_is_given(
    status: int, text: str, code: int, server: Server
) -> None:
    server.answers["/v3/kv/range"] = (status, text)
    server.answers["/health"] = (503, "")
    assert server.ask("tensorrt_llm=14", etcd=True) == code


def test_closed_port_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "llama", "--frontend", "http://127.0.0.1:1", "--expect", "prefill=1"]) == 1
    assert "not answering yet" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "prefill", "=3", "prefill=", "prefill=x", "prefill=-1", "prefill=1.5"])
def test_expectations_are_read_strictly(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected COMPONENT"):
        expectation(text)


def test_empty_responses_count_no_worker() -> None:
    assert count_in_health({}, "prefill") == 0
    assert not lists_model({}, "llama")
