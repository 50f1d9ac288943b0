"""Test what a plan renders for each generation of Dynamo, router, request plane and discovery."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
from support.composed import changed, composed

from tune.deploy.plan import LaunchPlan, render
from tune.engines.check import check, check_simulated
from tune.manifest.process import Process
from tune.spec.findings import only_errors
from tune.spec.stack import GENERATIONS

REUSE = tuple(f"{role}.kv_cache_config.enable_block_reuse=true" for role in ("prefill", "decode"))
MakePlan = Callable[..., LaunchPlan]


def plan(*overrides: str) -> LaunchPlan:
    options = [override for override in overrides if override.startswith("stack=")]
    changes = [override for override in overrides if override not in options]
    settings = changed(composed("cluster=slurm", *options), *changes)
    return render(settings.trial_spec, settings.cluster)


def by_role(rendered: LaunchPlan, role: str) -> list[Process]:
    return [process for process in rendered.processes if process.role == role]


@pytest.mark.parametrize(
    ("overrides", "services", "requests", "events"),
    [
        (("stack=dynamo_v0",), ["nats", "etcd"], None, None),
        (("stack=dynamo_v04",), ["nats", "etcd"], None, None),
        (("stack=dynamo_v07",), ["nats", "etcd"], "nats", None),
        (("stack=dynamo_v07", "stack.request_plane=tcp"), ["nats", "etcd"], "tcp", None),
        (("stack=dynamo_v1",), ["etcd"], "tcp", "zmq"),
        (("stack=dynamo_v1", "stack.request_plane=nats"), ["nats", "etcd"], "nats", "nats"),
        (("stack=dynamo_v1", "stack.discovery=file"), [], "tcp", "zmq"),
    ],
)
def test_services_are_those_that_the_planes_need(
    overrides: tuple[str, ...], services: list[str], requests: str | None, events: str | None
) -> None:
    rendered = plan(*overrides)
    started = [process.name for process in rendered.processes]
    assert started[: started.index("frontend")] == services
    for process in (*by_role(rendered, "frontend"), *by_role(rendered, "prefill")):
        assert process.env.get("DYN_REQUEST_PLANE") == requests
        assert process.env.get("DYN_EVENT_PLANE") == events
        assert ("NATS_SERVER" in process.env) == ("nats" in services)
        assert ("ETCD_ENDPOINTS" in process.env) == ("etcd" in services)
        assert process.env.get("DYN_FILE_KV") == (None if services else "${SCRATCH_DIR}/discovery")


def test_processes_in_an_image_see_the_folder_of_discovery() -> None:
    image = ("cluster.container_image=/images/dynamo.sqsh", "stack=dynamo_v1")
    for discovery, mounted in (("etcd", False), ("file", True)):
        text = plan(*image, f"stack.discovery={discovery}").files["processes.json"]
        assert ("${SCRATCH_DIR}:${SCRATCH_DIR}" in text) is mounted


@pytest.mark.parametrize(
    ("overrides", "options", "publishes"),
    [
        (("stack.router_mode=random",), ["--router-mode", "random"], False),
        (("stack.router_mode=random", *REUSE), ["--router-mode", "random"], False),
        (("stack.router_mode=kv",), ["--router-mode", "kv", "--no-kv-events"], False),
        (("stack.router_mode=kv", *REUSE), ["--router-mode", "kv"], True),
        (
            ("stack.router_mode=kv", "split.frontends=4"),
            ["--router-mode", "kv", "--no-kv-events", "--router-replica-sync"],
            False,
        ),
    ],
)
def test_a_kv_router_gets_events_where_workers_keep_blocks(
    overrides: tuple[str, ...], options: list[str], publishes: bool
) -> None:
    rendered = plan("stack=dynamo_v1", *overrides)
    for frontend in by_role(rendered, "frontend"):
        begin = frontend.argv.index("--router-mode")
        assert list(frontend.argv[begin : frontend.argv.index("--http-port")]) == options
    workers = (*by_role(rendered, "prefill"), *by_role(rendered, "decode"))
    assert {"--publish-events-and-metrics" in worker.argv for worker in workers} == {publishes}


@pytest.mark.parametrize("stack", GENERATIONS)
def test_every_generation_has_a_stack_that_passes_its_own_rules(stack: str) -> None:
    spec = composed(f"stack={stack}").trial_spec
    assert spec.stack.generation == stack
    assert not only_errors(check(spec))


def test_tensorrt_llm_1_0_spells_the_transceiver_in_lower_case() -> None:
    for stack, backend in (("dynamo_v04", "ucx"), ("dynamo_v07", "UCX"), ("dynamo_v1", "UCX")):
        ucx = [f"{role}.cache_transceiver_config.backend=UCX" for role in ("prefill", "decode")]
        text = plan(f"stack={stack}", *ucx).files["decode.yaml"]
        assert yaml.safe_load(text)["cache_transceiver_config"]["backend"] == backend


@pytest.mark.parametrize(
    ("stack", "routes_itself"),
    [("dynamo_v0", False), ("dynamo_v04", False), ("dynamo_v07", True), ("dynamo_v1", True)],
)
def test_the_strategy_flag_ends_with_0_7(stack: str, routes_itself: bool) -> None:
    rendered = plan(f"stack={stack}")
    (worker, *_) = by_role(rendered, "prefill")
    assert ("--disaggregation-strategy" in worker.argv) is not routes_itself
    assert ("--etcd" in rendered.readiness_command) is not routes_itself


@pytest.mark.parametrize(
    ("stack", "counts"),
    [("dynamo_v0", False), ("dynamo_v04", True), ("dynamo_v07", True), ("dynamo_v1", True)],
)
def test_real_workers_count_their_requests_and_do_not_log_each(stack: str, counts: bool) -> None:
    """Without a system port Dynamo counts nothing, and the checks of spread and drain would be empty."""
    rendered = plan(f"stack={stack}")
    workers = (*by_role(rendered, "prefill"), *by_role(rendered, "decode"))
    ports = [worker.metrics_port for worker in workers]
    assert ports == (list(range(9100, 9118)) if counts else [None] * 18)
    for worker in workers:
        port = worker.metrics_port
        assert worker.env.get("DYN_SYSTEM_PORT") == (str(port) if port else None)
        assert [listens.number for listens in worker.listens] == [port] * counts
    for process in (*workers, *by_role(rendered, "frontend")):
        assert "dynamo_llm::http::service=warn" in process.env["DYN_LOG"].split(",")


@pytest.mark.parametrize("stack", GENERATIONS)
def test_a_system_port_that_is_set_is_opened(stack: str) -> None:
    """Runtimes before 0.7 open it with a second variable only, which warns of itself in later ones."""
    rendered = plan(f"stack={stack}", "stack.system_port=9300")
    for worker in (*by_role(rendered, "prefill"), *by_role(rendered, "decode")):
        assert worker.env["DYN_SYSTEM_PORT"] == str(worker.metrics_port)
        needed = stack in ("dynamo_v0", "dynamo_v04")
        assert worker.env.get("DYN_SYSTEM_ENABLED") == ("true" if needed else None)


def test_the_simulated_rack_says_what_it_makes_of_a_kv_router() -> None:
    spec = composed("stack=dynamo_v1", "stack.router_mode=kv").trial_spec
    assert [finding.path for finding in check_simulated(spec)] == ["stack.router_mode"]
