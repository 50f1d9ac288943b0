"""Check one pool's TensorRT-LLM settings against model, hardware, stack and load."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from tune.engines.trtllm.engine_pools import yaml_generation
from tune.engines.trtllm.gpu_memory import CUDA_GRAPH_BYTES, trtllm_kv_capacity_tokens
from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.spec.findings import Finding
from tune.spec.memory import (
    kv_bytes_per_token,
    mean_sequences_that_fit,
    reserved_tokens,
    weight_bytes_per_gpu,
)
from tune.spec.model import Model
from tune.spec.split import GENERATES_ANSWERS, READS_PROMPTS, ROLES, Role
from tune.spec.trial import TrialSpec
from tune.workload.length_summary import mean_sequence

_ARGS = "TensorRT-LLM, llm_args.py"
_BUFFER = "TensorRT-LLM, batch_manager/cacheTransBuffer.cpp and cacheFormatter.cpp"
"""Buffers of a C++ transceiver: UCX, which mid 2025 has by default, and MPI allocate what they lack; NIXL,
the default since, needs all of it beforehand."""
_PREFILL_ANSWER_TOKENS = 1
_error, _warning = partial(Finding, "error"), partial(Finding, "warning")


def check_worker(spec: TrialSpec, engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    """Yield the rules that the settings of one pool break.

    Parameters
    ----------
    spec
        Gives model, hardware, load and stack.
    engine
        The settings of the pool.
    role
        The pool; the paths of findings begin with it.
    """
    yield from _parallelism(spec.model, engine, role)
    yield from _lengths(spec, engine, role)
    yield from _token_budget(spec, engine, role)
    yield from _compressed_cache(spec.model, engine, role)
    yield from _transceiver(spec, engine, role)
    yield from _graphs(engine, role)
    yield from _memory(spec, engine, role)


def _parallelism(model: Model, engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    """Yield what cannot be split over ranks; with attention DP every rank has all heads, so none is split.

    The one KV head of a model with MLA is on every rank whatever the TP: no choice of the user's.
    """
    tp, pp = engine.tensor_parallel_size, engine.pipeline_parallel_size
    attention_ranks = 1 if engine.attends_by_rank else tp
    if model.attention_heads % attention_ranks:
        yield _error(
            f"{role}.tensor_parallel_size",
            str(tp),
            f"a divisor of the model's {model.attention_heads} attention heads",
            "every rank holds the same number of heads",
            "TensorRT-LLM, _torch/modules/attention.py",
        )
    elif attention_ranks > model.kv_heads > 1:
        yield _warning(
            f"{role}.tensor_parallel_size",
            str(tp),
            f"at most the model's {model.kv_heads} KV heads",
            f"KV heads are replicated {tp / model.kv_heads:g} times: a token's KV cache takes that much more "
            "memory over the worker",
            "TensorRT-LLM, _torch/modules/attention.py",
        )
    if pp > model.layers:
        yield _error(
            f"{role}.pipeline_parallel_size",
            str(pp),
            f"at most the model's {model.layers} layers",
            "every stage holds a layer",
            "TensorRT-LLM, mapping.py",
        )


def _lengths(spec: TrialSpec, engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    prompt, answer = spec.load.dataset.longest_prompt_tokens, spec.load.dataset.longest_answer_tokens
    room = engine.max_seq_len - prompt
    if room < 1:
        yield _error(
            f"{role}.max_seq_len",
            str(engine.max_seq_len),
            f"more than the longest prompt, {prompt} tokens; with the longest answer "
            f"{role}.max_seq_len={prompt + answer}",
            "a longer prompt is rejected: those requests fail",
            f"{_ARGS}: prompt and answer together stay within max_seq_len",
        )
    elif role in GENERATES_ANSWERS and room < answer:
        yield _warning(
            f"{role}.max_seq_len",
            str(engine.max_seq_len),
            f"{prompt + answer}: the longest prompt, {prompt}, and the longest answer, {answer}",
            f"the longest prompts are answered with {room} tokens, cut short",
            f"{_ARGS}: prompt and answer together stay within max_seq_len",
        )


def _token_budget(spec: TrialSpec, engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    budget, prompt = engine.max_num_tokens, spec.load.dataset.longest_prompt_tokens
    path, block = f"{role}.max_num_tokens", engine.kv_block_tokens
    if role in GENERATES_ANSWERS:
        yield from _decode_budget(engine, role)
    if role not in READS_PROMPTS:
        return
    if not engine.enable_chunked_prefill:
        if budget < prompt:
            yield _error(
                path,
                f"{budget}, with {role}.enable_chunked_prefill off",
                f"at least the longest prompt, {prompt} tokens, or {role}.enable_chunked_prefill=true",
                "without chunking a prompt runs in one step",
                _ARGS,
            )
    elif budget < block:
        yield _error(
            path,
            str(budget),
            f"at least a KV block, {block} tokens",
            "a chunk is made of whole blocks: a smaller budget never starts a prompt that needs two",
            "TensorRT-LLM, py_executor_creator.py: chunk_unit_size = tokens_per_block",
        )
    elif budget % block:
        yield _warning(
            path,
            str(budget),
            f"a multiple of a KV block, {block} tokens",
            f"chunks are made of whole blocks: {budget % block} tokens of a full step stay empty",
            "TensorRT-LLM, py_executor_creator.py: chunk_unit_size = tokens_per_block",
        )


def _decode_budget(engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    """Yield a token budget below what a step takes: of every sequence a token and its draft tokens."""
    budget, batch, each = engine.max_num_tokens, engine.max_batch_size, 1 + engine.draft_tokens
    if budget >= batch * each:
        return
    if each > 1:
        expected = f"at least {role}.max_batch_size x (1 + {each - 1} draft tokens), {batch * each}"
        why = f"a step takes {each} tokens of every sequence: no more than {budget // each} decode"
        source = "TensorRT-LLM, pull request 5076"
    else:
        expected = f"at least {role}.max_batch_size, {batch}"
        why, source = f"a step generates one token for every sequence: no more than {budget} decode", _ARGS
    yield _warning(f"{role}.max_num_tokens", str(budget), expected, f"{why} at once", source)


def _compressed_cache(model: Model, engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    if engine.kv_dtype == "fp8_ds_mla" and model.kv_heads > 1:
        yield _error(
            f"{role}.kv_cache_config.dtype",
            f"fp8_ds_mla for {model.name}, which has {model.kv_heads} KV heads",
            "another number format, such as fp8",
            "this layout holds the one compressed KV head of DeepSeek's attention (MLA)",
            "deepseek-ai/FlashMLA, README.md",
        )


def _transceiver(spec: TrialSpec, engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    transceiver, block = engine.cache_transceiver_config, engine.kv_block_tokens
    if transceiver is None or role not in ROLES:
        return
    tokens = transceiver.max_tokens_in_buffer
    if tokens is None or transceiver.transceiver_runtime in ("PYTHON", "auto"):
        return
    prompt = spec.load.dataset.longest_prompt_tokens
    path = f"{role}.cache_transceiver_config.max_tokens_in_buffer"
    if tokens % block:
        yield _error(
            path,
            str(tokens),
            f"a multiple of a KV block, {block} tokens",
            "the KV cache travels in whole blocks, and the engine ends where its buffer is none",
            _BUFFER,
        )
    if tokens < prompt:
        allocates = yaml_generation(spec.stack) == "flat" or transceiver.backend in ("UCX", "MPI")
        report, why = (
            (_warning, "for what a longer prompt needs besides, memory is allocated at each transfer")
            if allocates
            else (_error, "a prompt's KV cache passes through the buffer whole")
        )
        yield report(
            path,
            str(tokens),
            f"at least the longest prompt, {prompt} tokens: {path}={-(-prompt // block) * block}",
            why,
            _BUFFER,
        )


def _graphs(engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    graphs, sizes, path = engine.cuda_graph_config, engine.graph_batch_sizes, _graph_path(engine, role)
    if graphs is None:
        return
    if graphs.batch_sizes and graphs.max_batch_size not in (None, max(sizes)):
        yield _error(
            f"{role}.cuda_graph_config.max_batch_size",
            str(graphs.max_batch_size),
            f"{max(sizes)}, the largest of {role}.cuda_graph_config.batch_sizes, or null in one of the two",
            "the engine refuses two different largest sizes",
            _ARGS,
        )
    if graphs.batch_sizes == ():
        yield _warning(
            path,
            "an empty list",
            f"at least one batch size, or {role}.cuda_graph_config=null",
            f"the engine fills an empty list with sizes of its own, up to {max(sizes)}",
            _ARGS,
        )
    captured = engine.captured_graph_sizes
    left_out = [size for size in sizes if size not in captured]
    if left_out:
        yield _warning(
            path,
            _listed(left_out),
            f"{_listed(captured)}, the sizes that are captured; in a sweep, a graph_family follows the batch",
            f"no batch is larger than {role}.max_batch_size, {engine.max_batch_size}, or "
            f"{role}.max_num_tokens, {engine.max_num_tokens}: the engine leaves larger sizes out",
            "TensorRT-LLM, _torch/pyexecutor/model_engine.py",
        )
    if role == "prefill":
        yield _warning(
            path,
            f"{len(sizes)} sizes",
            "prefill.cuda_graph_config=null",
            "graphs run decode-only batches, which a prefill worker never has: they cost up to "
            f"{len(sizes) * CUDA_GRAPH_BYTES / 1e9:.1f} GB a GPU and start-up time",
            _ARGS,
        )


def _memory(spec: TrialSpec, engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    weights, dataset = weight_bytes_per_gpu(spec.model, engine), spec.load.dataset
    if weights >= spec.hardware.hbm_bytes:
        yield _error(
            f"{role}.tensor_parallel_size",
            f"{weights / 1e9:.1f} GB of weights a GPU ({engine.gpus} GPUs a worker)",
            f"less than the {spec.hardware.hbm_bytes / 1e9:.0f} GB of a {spec.hardware.name} GPU",
            "the weights do not fit",
            "the checkpoint's size over the GPUs that share it",
        )
        return
    capacity = trtllm_kv_capacity_tokens(spec.model, spec.hardware, engine) // engine.attention_ranks
    answer = dataset.longest_answer_tokens if role in GENERATES_ANSWERS else _PREFILL_ANSWER_TOKENS
    longest = int(reserved_tokens(np.array(dataset.longest_prompt_tokens), answer, engine))
    if capacity < longest:
        yield _error(
            f"{role}.kv_cache_config.free_gpu_memory_fraction",
            f"a KV cache of {capacity} tokens a {'rank' if engine.attends_by_rank else 'worker'}",
            f"at least one longest sequence, {longest} tokens",
            "a sequence that never fits waits for ever",
            "tune/engines/trtllm/gpu_memory.py: free_gpu_memory_fraction of what weights and graphs leave",
        )
    elif role in GENERATES_ANSWERS and not engine.attends_by_rank:
        batch = mean_sequences_that_fit(capacity, engine, mean_sequence(dataset))
        yield from _reach(spec.model, engine, role, batch)


def _reach(model: Model, engine: TrtLlmEngine, role: Role, batch: int) -> Iterator[Finding]:
    limit, sizes = engine.max_batch_size, engine.captured_graph_sizes
    source = "tune/engines/trtllm/gpu_memory.py: KV cache over what a sequence of mean length reserves"
    if limit > batch:
        yield _warning(
            f"{role}.max_batch_size",
            str(limit),
            f"about {batch}",
            f"the KV cache holds about {batch} sequences of mean length under {engine.capacity_policy}: "
            f"the other {limit - batch} slots never fill, and a higher limit changes nothing",
            source,
        )
    idle = [size for size in sizes if size > batch][1:]
    if idle:
        lost_bytes = len(idle) * CUDA_GRAPH_BYTES
        share = engine.kv_cache_config.free_gpu_memory_fraction * lost_bytes * engine.gpus
        yield _warning(
            _graph_path(engine, role),
            _listed(idle),
            f"nothing beyond the first size above the reachable batch, about {batch}",
            f"{len(idle)} graphs are captured and never run: up to {lost_bytes / 1e9:.1f} GB a GPU, or "
            f"{share / kv_bytes_per_token(model, engine):.0f} tokens of KV cache, and start-up time",
            f"{_ARGS}: a graph costs up to 200 MB",
        )
    if sizes and max(sizes) < min(batch, limit):
        yield _warning(
            _graph_path(engine, role),
            f"largest size {max(sizes)}",
            f"a size of at least {min(batch, limit)}, the reachable batch",
            "a batch above the largest size runs without a CUDA graph, and slower",
            _ARGS,
        )


def _graph_path(engine: TrtLlmEngine, role: Role) -> str:
    """Return the setting that decides the sizes of the CUDA graphs."""
    graphs = engine.cuda_graph_config
    listed = graphs is None or graphs.batch_sizes is not None
    return f"{role}.cuda_graph_config.{'batch_sizes' if listed else 'max_batch_size'}"


def _listed(sizes: tuple[int, ...] | list[int]) -> str:
    return "[" + ", ".join(str(size) for size in sizes) + "]"
