"""Check once whether every worker of a deployment is registered, with the standard library alone.

    python3 ready.py --model NAME --frontend URL ... [--etcd URL] --expect COMPONENT[,COMPONENT]=COUNT ...

Exit 0 when every frontend lists the model and knows as many workers as expected, 1 while one does not; the
state is printed in one line. A frontend calls itself healthy with no prefill worker at all, so components
are counted: in etcd where `--etcd` is given (mid 2025: the frontend lists only endpoints that clients may
call; keys are instances/dynamo/<component>/generate:<lease>), else among the instances of /health.
Source: Dynamo, lib/runtime/src/component.rs (mid 2025); lib/llm/src/http/service/health.rs (1.x).
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import urllib.request
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 5.0


def expectation(text: str) -> tuple[tuple[str, ...], int]:
    """Read `prefill=14` or `backend,decode=4`: the names of one component and its number of instances."""
    names, _, count = text.rpartition("=")
    if not names or not count.isdigit():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected COMPONENT[,COMPONENT]=COUNT")
    return tuple(names.split(",")), int(count)


def count_in_etcd(url: str, component: str) -> int:
    """Count instances of a component's `generate` endpoint in etcd. Raises OSError, ValueError."""
    prefix = f"instances/dynamo/{component}/generate:"
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    question = {"key": _base64(prefix), "range_end": _base64(end), "count_only": True}
    return int(_fetch(f"{url}/v3/kv/range", json.dumps(question).encode()).get("count", 0))


def count_in_health(health: dict[str, Any], component: str) -> int:
    """Count instances of a component's `generate` endpoint in the frontend's /health."""
    return sum(
        instance.get("component") == component and instance.get("endpoint") == "generate"
        for instance in health.get("instances", [])
    )


def lists_model(models: dict[str, Any], name: str) -> bool:
    """Return whether the frontend's /v1/models offers `name`."""
    return any(model.get("id") == name for model in models.get("data", []))


@dataclass(frozen=True)
class Registration:
    """Hold the state of registration.

    `counts` has, for each expectation, its names, how many are registered and how many are expected; where
    frontends differ, what the one has that knows fewest. `listed` says whether every frontend lists the
    model, `agreed` whether all frontends count equal numbers.
    """

    counts: tuple[tuple[str, int, int], ...]
    listed: bool
    agreed: bool = True

    @property
    def complete(self) -> bool:
        """Return whether every expected count is reached and the model is listed, on every frontend."""
        return self.listed and all(count >= wanted for _, count, wanted in self.counts)

    def __str__(self) -> str:
        states = [f"{names} {count} of {wanted}" for names, count, wanted in self.counts]
        return ", ".join([*states, f"model {'listed' if self.listed else 'not listed'}"])


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read `model`, `frontend`, `etcd` and `expect` from a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--frontend", required=True, action="append")
    parser.add_argument("--etcd")
    parser.add_argument("--expect", required=True, action="append", type=expectation)
    return parser.parse_args(arguments)


def query_registration(options: argparse.Namespace) -> Registration:
    """Return the state of registration. Raises OSError, ValueError while a server does not answer yet."""
    listed = all(lists_model(_fetch(f"{url}/v1/models"), options.model) for url in options.frontend)
    if options.etcd:
        seen = [[sum(count_in_etcd(options.etcd, name) for name in names) for names, _ in options.expect]]
    else:
        healths = [_fetch(f"{url}/health") for url in options.frontend]
        seen = [
            [sum(count_in_health(health, name) for name in names) for names, _ in options.expect]
            for health in healths
        ]
    fewest = [min(counts) for counts in zip(*seen, strict=True)]
    counts = tuple(
        ("/".join(names), count, wanted)
        for (names, wanted), count in zip(options.expect, fewest, strict=True)
    )
    return Registration(counts, listed, agreed=all(each == fewest for each in seen))


def query_instances(options: argparse.Namespace) -> list[list[int]]:
    """Return the ids of the registered instances of each expected component, sorted; none with `--etcd`.

    The first frontend is asked; the ids are those of the discovery service. Raises OSError, ValueError where
    it does not answer.
    """
    health = {} if options.etcd else _fetch(f"{options.frontend[0]}/health")
    return [
        sorted(
            instance["instance_id"]
            for instance in health.get("instances", [])
            if instance.get("component") in names
            and instance.get("endpoint") == "generate"
            and isinstance(instance.get("instance_id"), int)
        )
        for names, _ in options.expect
    ]


def main(arguments: list[str]) -> int:
    """Print the state of registration; return 0 where it is complete, else 1."""
    options = parse_arguments(arguments)
    try:
        registration = query_registration(options)
    except (OSError, ValueError) as error:
        print(f"not answering yet: {error}")
        return 1
    print(registration)
    return 0 if registration.complete else 1


def _fetch(url: str, body: bytes | None = None) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body), timeout=_TIMEOUT_S) as answer:
            content = json.load(answer)
    except OSError as error:
        raise OSError(f"{url}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{url}: found {type(content).__name__}, expected a JSON object")  # noqa: TRY004
    return content


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
