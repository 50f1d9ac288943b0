"""Recommend what every engine has a setting for, under the engine's own key names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tune.engines.base import Remedy
from tune.records.outcome import Recommendation
from tune.spec.engine import Engine
from tune.spec.split import ROLES, Role, Split, place_workers
from tune.spec.trial import TrialSpec


def shared_recommendations(
    spec: TrialSpec, remedy: Remedy, graph_setting: str, listed_graphs: Sequence[int]
) -> Iterator[Recommendation]:
    """Yield the settings that apply `remedy` to `spec`; none where every engine has a way of its own.

    Parameters
    ----------
    graph_setting
        Path, below a pool, of the setting that lists batch sizes with a CUDA graph.
    listed_graphs
        Those sizes of the decode pool; empty where none are listed.
    """
    decode = spec.decode
    match remedy.kind:
        case "larger_worker":
            yield from _larger_worker(spec, remedy.role)
        case "larger_chunks":
            yield from _larger_chunks(spec)
        case "wider_batch":
            batch = int(remedy.batch or 0)
            overrides = [f"decode.{decode.KEYS['max_sequences']}={batch}"]
            if decode.token_budget < batch:
                overrides.append(f"decode.{decode.KEYS['token_budget']}={batch}")
            if listed_graphs:
                sizes = [*(size for size in listed_graphs if size < batch), batch]
                overrides.append(f"decode.{graph_setting}=[{','.join(map(str, sizes))}]")
            yield Recommendation(text="a wider decode batch", overrides=tuple(overrides))
        case "fuller_batches":
            yield from _graphs_for_larger_batches(decode, remedy.batch)


def _larger_worker(spec: TrialSpec, role: Role) -> Iterator[Recommendation]:
    """Yield workers of twice the tensor parallelism, half as many of them, and the other pool beside them."""
    engine: Engine = getattr(spec, role)
    key, tensor_parallel = engine.KEYS["tensor_parallel"], 2 * engine.tensor_parallel
    larger = spec.model_copy(update={role: engine.model_copy(update={key: tensor_parallel})})
    if split := _split_of_half(larger, role):
        yield Recommendation(
            text=f"twice the GPUs a {role} worker, {split.label}",
            overrides=(
                f"{role}.{key}={tensor_parallel}",
                f"split.prefill_workers={split.prefill_workers}",
                f"split.decode_workers={split.decode_workers}",
            ),
        )


def _split_of_half(spec: TrialSpec, role: Role) -> Split | None:
    """Return the split with half the workers of `role` that fits the rack with most of the other pool's.

    An odd number is rounded up where that fits, else down. None where no such split fits.
    """
    own, other = (f"{each}_workers" for each in sorted(ROLES, key=lambda each: each != role))
    workers = getattr(spec.split, own)
    for others in range(getattr(spec.split, other), 0, -1):
        for half in dict.fromkeys((-(-workers // 2), max(1, workers // 2))):
            split = spec.split.model_copy(update={own: half, other: others})
            if place_workers(spec.hardware, spec.prefill, spec.decode, split):
                return split
    return None


def _larger_chunks(spec: TrialSpec) -> Iterator[Recommendation]:
    """Yield chunks of twice the tokens, but no more than the longest prompt has, in whole KV blocks."""
    engine, block = spec.prefill, spec.prefill.kv_block_tokens
    longest = -(-spec.load.dataset.longest_prompt_tokens // block) * block
    larger = min(2 * engine.token_budget, longest)
    if engine.chunks_prompts and engine.token_budget < larger:
        yield Recommendation(
            text="larger chunks, as every step reads the weights again",
            overrides=(f"prefill.{engine.KEYS['token_budget']}={larger}",),
        )


def _graphs_for_larger_batches(decode: Engine, batch: float | None) -> Iterator[Recommendation]:
    sizes = decode.captured_graph_sizes
    if batch is not None and (not sizes or batch > max(sizes)):
        yield Recommendation(text=f"CUDA graphs for decode batches up to {batch:.0f}")
