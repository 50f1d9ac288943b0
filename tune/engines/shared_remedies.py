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
        Those sizes of the pool that decodes; empty where none are listed.
    """
    decode, role = spec.decode, spec.pools[-1].role
    match remedy.kind:
        case "larger_worker":
            yield from _larger_worker(spec, remedy.role)
        case "smaller_workers":
            yield from _smaller_workers(spec, remedy.role)
        case "larger_chunks":
            yield from _larger_chunks(spec)
        case "smaller_chunks":
            yield from _smaller_chunks(spec)
        case "wider_batch":
            batch = int(remedy.batch or 0)
            overrides = [f"{role}.{decode.KEYS['max_sequences']}={batch}"]
            if decode.token_budget < batch:
                overrides.append(f"{role}.{decode.KEYS['token_budget']}={batch}")
            if listed_graphs:
                sizes = [*(size for size in listed_graphs if size < batch), batch]
                overrides.append(f"{role}.{graph_setting}=[{','.join(map(str, sizes))}]")
            yield Recommendation(text="a wider decode batch", overrides=tuple(overrides))
        case "fuller_batches":
            yield from _graphs_for_larger_batches(decode, remedy.batch)


def _larger_worker(spec: TrialSpec, role: Role) -> Iterator[Recommendation]:
    """Yield workers of twice the tensor parallelism, half as many of them, and the other pool beside them."""
    engine = spec.engine(role)
    key, tensor_parallel = engine.KEYS["tensor_parallel"], 2 * engine.tensor_parallel
    if role == "aggregated":
        yield from _larger_aggregated_worker(spec)
        return
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


def _larger_aggregated_worker(spec: TrialSpec) -> Iterator[Recommendation]:
    """Yield half as many aggregated workers of twice the tensor parallelism, where there are two or more."""
    engine, workers = spec.prefill, spec.split.aggregated_workers // 2
    key = engine.KEYS["tensor_parallel"]
    larger = engine.model_copy(update={key: 2 * engine.tensor_parallel})
    split = spec.split.model_copy(update={"aggregated_workers": workers})
    if workers and place_workers(spec.hardware, larger, larger, split):
        yield Recommendation(
            text=f"twice the GPUs a worker, {split.label}",
            overrides=(
                f"aggregated.{key}={larger.tensor_parallel}",
                f"split.aggregated_workers={workers}",
            ),
        )


def _smaller_workers(spec: TrialSpec, role: Role) -> Iterator[Recommendation]:
    """Yield twice as many workers of half the tensor parallelism, one of them moved to the pool `role`."""
    engines: dict[Role, Engine] = {each: getattr(spec, each) for each in ROLES}
    if any(engine.tensor_parallel % 2 for engine in engines.values()):
        return
    halves = {
        each: engine.model_copy(update={engine.KEYS["tensor_parallel"]: engine.tensor_parallel // 2})
        for each, engine in engines.items()
    }
    counts = {
        f"{each}_workers": 2 * getattr(spec.split, f"{each}_workers") + (1 if each == role else -1)
        for each in ROLES
    }
    split = spec.split.model_copy(update=counts)
    if place_workers(spec.hardware, halves["prefill"], halves["decode"], split):
        yield Recommendation(
            text=f"half the GPUs a worker in both pools, {split.label}",
            overrides=(
                *(
                    f"{each}.{engine.KEYS['tensor_parallel']}={engine.tensor_parallel // 2}"
                    for each, engine in engines.items()
                ),
                *(f"split.{name}={count}" for name, count in counts.items()),
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
    engine, role, block = spec.prefill, spec.pools[0].role, spec.prefill.kv_block_tokens
    longest = -(-spec.load.dataset.longest_prompt_tokens // block) * block
    larger = min(2 * engine.token_budget, longest)
    if engine.chunks_prompts and engine.token_budget < larger:
        yield Recommendation(
            text="larger chunks, as every step reads the weights again",
            overrides=(f"{role}.{engine.KEYS['token_budget']}={larger}",),
        )


def _smaller_chunks(spec: TrialSpec) -> Iterator[Recommendation]:
    """Yield steps of half the tokens, but no fewer than a batch of answers and one KV block have."""
    engine, role = spec.prefill, spec.pools[0].role
    smaller = engine.token_budget // 2
    if engine.chunks_prompts and smaller >= engine.max_sequences + engine.kv_block_tokens:
        yield Recommendation(
            text="smaller chunks, as answers wait for every step that reads prompts",
            overrides=(f"{role}.{engine.KEYS['token_budget']}={smaller}",),
        )


def _graphs_for_larger_batches(decode: Engine, batch: float | None) -> Iterator[Recommendation]:
    sizes = decode.captured_graph_sizes
    if batch is not None and (not sizes or batch > max(sizes)):
        yield Recommendation(text=f"CUDA graphs for decode batches up to {batch:.0f}")
