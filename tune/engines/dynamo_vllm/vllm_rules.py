"""Check vLLM's settings against each other, the model, the hardware and the load."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tune.engines.dynamo_vllm.vllm_engine import VllmEngine
from tune.engines.dynamo_vllm.vllm_memory import vllm_kv_capacity_tokens
from tune.engines.dynamo_vllm.vllm_pools import vllm_pools
from tune.engines.dynamo_vllm.vllm_processes import SIDE_CHANNEL_OFFSET, finds_by_files
from tune.engines.system_ports import check_ports
from tune.spec.findings import Finding
from tune.spec.memory import mean_sequences_that_fit, weight_bytes_per_gpu
from tune.spec.split import GENERATES_ANSWERS, Role
from tune.spec.trial import TrialSpec
from tune.workload.length_summary import mean_sequence

_SCHEDULER = "vLLM 0.23.0, vllm/config/scheduler.py"
_error, _warning = partial(Finding, "error"), partial(Finding, "warning")


def check_vllm(spec: TrialSpec) -> Iterator[Finding]:
    """Yield every rule of vLLM that `spec` breaks, and every choice that costs something."""
    stack = spec.stack
    etcd = () if finds_by_files(spec) else (stack.etcd_client_port, stack.etcd_peer_port)
    pools = vllm_pools(spec)
    yield from check_ports(spec, etcd, (0, SIDE_CHANNEL_OFFSET) if len(pools) > 1 else (0,))
    yield from _pools_agree(pools[0][1], pools[-1][1])
    for role, engine in pools:
        yield from _parallelism(spec, engine, role)
        yield from _lengths(spec, engine, role)
        yield from _step(engine, role)
        yield from _graphs(engine, role)
        yield from _memory(spec, engine, role)


def _pools_agree(prefill: VllmEngine, decode: VllmEngine) -> Iterator[Finding]:
    for name, mine, others in (
        ("kv_cache_dtype", prefill.kv_cache_dtype, decode.kv_cache_dtype),
        ("block_size", prefill.kv_block_tokens, decode.kv_block_tokens),
        ("dtype", prefill.dtype, decode.dtype),
    ):
        if mine != others:
            yield _error(
                f"prefill.{name}",
                f"{mine}, and {others} in decode",
                "one value in both pools",
                "the connectors compare their KV caches when they meet, and refuse another layout",
                "vLLM 0.23.0, NIXL compatibility check (kv_connector/v1/nixl)",
            )


def _parallelism(spec: TrialSpec, engine: VllmEngine, role: Role) -> Iterator[Finding]:
    tp, model = engine.tensor_parallel_size, spec.model
    if model.attention_heads % tp:
        yield _error(
            f"{role}.tensor_parallel_size",
            str(tp),
            f"a divisor of the model's {model.attention_heads} attention heads",
            "every rank holds the same number of heads",
            "vLLM 0.23.0, vllm/config/model.py",
        )
    if engine.pipeline_parallel_size > model.layers:
        yield _error(
            f"{role}.pipeline_parallel_size",
            str(engine.pipeline_parallel_size),
            f"at most the model's {model.layers} layers",
            "every stage holds a layer",
            "vLLM 0.23.0, vllm/distributed/utils.py",
        )
    if engine.gpus > spec.hardware.gpus_per_node:
        yield _error(
            f"{role}.tensor_parallel_size",
            f"{engine.gpus} GPUs a worker",
            f"at most the {spec.hardware.gpus_per_node} GPUs of a node",
            "a worker is started on one node; workers over several nodes are not rendered",
            "tune/engines/dynamo_vllm/vllm_processes.py",
        )


def _lengths(spec: TrialSpec, engine: VllmEngine, role: Role) -> Iterator[Finding]:
    prompt, answer = spec.load.dataset.longest_prompt_tokens, spec.load.dataset.longest_answer_tokens
    context, room = spec.model.context_tokens, engine.max_model_len - prompt
    path, found = f"{role}.max_model_len", str(engine.max_model_len)
    if context is not None and engine.max_model_len > context:
        yield _error(
            path,
            found,
            f"at most the model's {context} tokens",
            "the engine refuses more than the model's config.json allows",
            "vLLM 0.23.0, vllm/config/model.py",
        )
    if room < 1:
        yield _error(
            path,
            found,
            f"more than the longest prompt, {prompt}; with the longest answer {path}={prompt + answer}",
            "a longer prompt is rejected: those requests fail",
            "vLLM, max_model_len is prompt and answer together",
        )
    elif role in GENERATES_ANSWERS and room < answer:
        yield _warning(
            path,
            found,
            f"{prompt + answer}: the longest prompt, {prompt}, and the longest answer, {answer}",
            f"the longest prompts are answered with {room} tokens, cut short",
            "vLLM, max_model_len is prompt and answer together",
        )


def _step(engine: VllmEngine, role: Role) -> Iterator[Finding]:
    path, budget = f"{role}.max_num_batched_tokens", engine.max_num_batched_tokens
    if budget < engine.max_num_seqs:
        yield _error(
            path,
            str(budget),
            f"at least {role}.max_num_seqs, {engine.max_num_seqs}",
            "the engine refuses a step with less than a token for every sequence",
            _SCHEDULER,
        )
    if not engine.enable_chunked_prefill and budget < engine.max_model_len:
        yield _error(
            path,
            f"{budget}, with {role}.enable_chunked_prefill off",
            f"at least {role}.max_model_len, {engine.max_model_len}, or {role}.enable_chunked_prefill=true",
            "without chunking a prompt runs in one step, and the engine refuses to start",
            _SCHEDULER,
        )


def _graphs(engine: VllmEngine, role: Role) -> Iterator[Finding]:
    path, sizes = f"{role}.cudagraph_capture_sizes", engine.cudagraph_capture_sizes
    if sizes == () and not engine.enforce_eager:
        yield _error(
            path,
            "an empty list",
            f"at least one batch size, or {role}.enforce_eager=true",
            "the engine refuses an empty list",
            "vLLM 0.23.0, VllmConfig._set_cudagraph_sizes",
        )
    if engine.enforce_eager and sizes:
        yield _warning(
            path,
            f"{len(sizes)} sizes with {role}.enforce_eager on",
            f"{path}=null, or {role}.enforce_eager=false",
            "nothing is captured with enforce_eager",
            "vLLM 0.23.0, VllmConfig._set_cudagraph_sizes",
        )
    if role in GENERATES_ANSWERS and sizes and max(sizes) < engine.max_num_seqs:
        yield _warning(
            path,
            f"largest size {max(sizes)}",
            f"a size of at least {role}.max_num_seqs, {engine.max_num_seqs}",
            "a batch above the largest size runs without a CUDA graph, and slower",
            "vLLM 0.23.0, VllmConfig._set_cudagraph_sizes",
        )


def _memory(spec: TrialSpec, engine: VllmEngine, role: Role) -> Iterator[Finding]:
    weights = weight_bytes_per_gpu(spec.model, engine)
    room = engine.gpu_memory_utilization * spec.hardware.hbm_bytes
    if weights >= room:
        yield _error(
            f"{role}.tensor_parallel_size",
            f"{weights / 1e9:.1f} GB of weights a GPU ({engine.gpus} GPUs a worker)",
            f"less than the {room / 1e9:.0f} GB that {role}.gpu_memory_utilization leaves",
            "the weights do not fit",
            "the checkpoint's size over the GPUs that share it",
        )
        return
    capacity = vllm_kv_capacity_tokens(spec.model, spec.hardware, engine)
    if capacity < engine.max_model_len:
        yield _error(
            f"{role}.gpu_memory_utilization",
            f"a KV cache of about {capacity} tokens a worker",
            f"at least {role}.max_model_len, {engine.max_model_len} tokens",
            "the engine refuses to start where one longest sequence does not fit",
            "vLLM 0.23.0, vllm/v1/core/kv_cache_utils.py: _check_enough_kv_cache_memory",
        )
    elif role in GENERATES_ANSWERS:
        batch = mean_sequences_that_fit(capacity, engine, mean_sequence(spec.load.dataset))
        if engine.max_num_seqs > batch:
            yield _warning(
                f"{role}.max_num_seqs",
                str(engine.max_num_seqs),
                f"about {batch}",
                f"the KV cache holds about {batch} sequences of mean length: the other "
                f"{engine.max_num_seqs - batch} slots never fill",
                "tune/engines/dynamo_vllm/vllm_memory.py",
            )
