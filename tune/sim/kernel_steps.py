"""Sum times of kernels that AIConfigurator measured: a table of steps for each shape of a pool.

AIConfigurator adds up the times of a step's kernels, for the models, GPUs and engines that it knows. Its sums
become rows like those of a measured table (tune/sim/step_tables.py), for one rank of a worker with attention
data parallelism. Nobody measured these steps, so their scales belong to be calibrated.

Source: AIConfigurator, aiconfigurator-core 0.12 (Apache-2.0), an optional dependency.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from tune.errors import ConfigurationError
from tune.spec.cluster import Calibration
from tune.spec.engine import Engine, KvDtype
from tune.spec.engine_table import ENGINES
from tune.spec.findings import Finding
from tune.spec.model import WeightDtype
from tune.spec.step_table import PHASES, Phase, StepRow
from tune.spec.trial import TrialSpec

if TYPE_CHECKING:
    from aiconfigurator_core.sdk.engine import EngineHandle

_LIBRARY = "aiconfigurator_core"

_GPUS: Mapping[str, str] = {
    "h100": "h100_sxm",
    "h200": "h200_sxm",
    "b200": "b200_sxm",
    "b300": "b300_sxm",
    "gb200": "gb200",
    "gb300": "gb300",
}
"""AIConfigurator's name of a GPU, by the first word of `hardware.name`."""

_MODELS: Mapping[str, str] = {
    "meta-llama/Llama-3.1-405B-Instruct": "meta-llama/Meta-Llama-3.1-405B",
    "meta-llama/Llama-3.1-70B-Instruct": "meta-llama/Meta-Llama-3.1-70B",
    "moonshotai/Kimi-K2-Instruct": "moonshotai/Kimi-K2.5",
}
"""AIConfigurator's model with the sizes of a served one, where it has another name."""

_FORMATS: Mapping[WeightDtype, str] = {"nvfp4": "nvfp4", "fp8": "fp8", "bfloat16": "bfloat16"}
"""AIConfigurator's name of a number format of weights."""

_KV_FORMATS: Mapping[KvDtype | None, str] = {
    "fp8": "fp8",
    "fp8_ds_mla": "fp8",
    "bfloat16": "bfloat16",
    None: "bfloat16",
}
"""AIConfigurator's name of a format of the KV cache; a checkpoint without one of its own keeps BF16."""

_FP8_OF_EXPERTS = "fp8_block"
"""FP8 with a scale for each block of 128 x 128 weights, as in the checkpoints of the models with experts that
are shipped; those of dense models have one for a tensor. Source: quantization_config of their config.json."""

_MXFP4_OF_EXPERTS, _MXFP4_BESIDE_MXFP8 = "w4a16_mxfp4", "w4a8_mxfp4_mxfp8"
"""MXFP4 weights of experts with activations in BF16, and in MXFP8."""

_PROMPT_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_CONTEXTS = (16, 256, 1024, 4096, 16384, 65536, 262144)
"""Sizes of the steps that are summed. Chosen here: between them times are interpolated linearly."""


class KernelShape(NamedTuple):
    """Hold what the kernels of a worker depend on, in AIConfigurator's terms.

    A worker with attention data parallelism has `attention_ranks` and no tensor parallelism of attention.
    `sequences` and `tokens` are the most of one step, `context` the longest sequence.
    """

    model: str
    gpu: str
    engine: str
    tensor_parallel: int
    attention_ranks: int
    expert_parallel: int
    dense_format: str
    expert_format: str | None
    kv_format: str
    draft_tokens: int
    sequences: int
    tokens: int
    context: int


def kernel_shape(spec: TrialSpec, engine: Engine) -> KernelShape:
    """Return what the kernels of a worker of a trial depend on.

    Raises ConfigurationError where AIConfigurator has no name for it.
    """
    model, gpu = spec.model, spec.hardware.name.replace("_", "-").split("-", maxsplit=1)[0]
    if gpu not in _GPUS:
        raise ConfigurationError(
            f"hardware.name: found {spec.hardware.name}; expected a name that begins with one of "
            f"{', '.join(_GPUS)}, the GPUs whose kernels AIConfigurator measured."
        )
    if engine.pipeline_stages > 1 or engine.context_parallel > 1:
        raise ConfigurationError(
            "pipeline and context parallelism: found more than 1; expected 1 with "
            "cluster.calibration.step_source=aiconfigurator, whose sums are of one stage."
        )
    kernels_name = ENGINES[spec.stack.engine].kernels_name
    if kernels_name is None:
        raise ConfigurationError(
            f"stack.engine: found {spec.stack.engine}, of which AIConfigurator has no kernels; expected one "
            f"of {', '.join(name for name, entry in ENGINES.items() if entry.kernels_name)}."
        )
    kv_format = model.kv_dtype if engine.kv_dtype == "auto" else engine.kv_dtype
    if kv_format not in _KV_FORMATS:
        raise ConfigurationError(
            f"format of the KV cache: found {kv_format}; expected fp8 or bfloat16, whose kernels "
            "AIConfigurator measured."
        )
    experts = model.experts is not None
    return KernelShape(
        model=_MODELS.get(model.served_name, model.served_name),
        gpu=_GPUS[gpu],
        engine=kernels_name,
        tensor_parallel=1 if engine.attends_by_rank else engine.tensor_parallel,
        attention_ranks=engine.attention_ranks,
        expert_parallel=engine.expert_parallel if experts else 1,
        dense_format=_format(model.attention_dtype or model.weight_dtype, experts=experts),
        expert_format=_expert_format(spec, gpu) if experts else None,
        kv_format=_KV_FORMATS[kv_format],
        draft_tokens=engine.draft_tokens,
        sequences=engine.max_sequences,
        tokens=engine.token_budget,
        context=engine.max_sequence_tokens,
    )


def _expert_format(spec: TrialSpec, gpu: str) -> str:
    """Return AIConfigurator's name of the format of experts on a GPU."""
    if spec.model.weight_dtype != "mxfp4":
        return _format(spec.model.weight_dtype, experts=True)
    has_mxfp8 = ENGINES[spec.stack.engine].experts_take_mxfp8 and not gpu.startswith("h")
    return _MXFP4_BESIDE_MXFP8 if has_mxfp8 else _MXFP4_OF_EXPERTS


def _format(dtype: WeightDtype, *, experts: bool) -> str:
    """Return AIConfigurator's name of a format of weights, of a model with experts or without.

    Raises ConfigurationError where it has none.
    """
    if dtype not in _FORMATS:
        raise ConfigurationError(
            f"model: found weights in {dtype}; expected one of {', '.join(_FORMATS)}, whose kernels "
            "AIConfigurator measured."
        )
    return _FP8_OF_EXPERTS if dtype == "fp8" and experts else _FORMATS[dtype]


def with_kernel_steps(spec: TrialSpec, calibration: Calibration) -> Calibration:
    """Return the calibration with tables of the trial's pools, where `step_source` asks for them.

    A phase with a table of its own keeps it. Raises ConfigurationError where the kernels are not known.
    """
    if calibration.step_source is None:
        return calibration
    engines: dict[Phase, Engine] = {"prefill": spec.prefill, "decode": spec.decode}
    tables = {
        f"{phase}_steps": kernel_rows(kernel_shape(spec, engines[phase]), phase)
        for phase in PHASES
        if getattr(calibration, f"{phase}_steps") is None
    }
    return calibration.model_copy(update=tables)


def check_kernels(spec: TrialSpec, calibration: Calibration | None) -> Iterator[Finding]:
    """Yield an error where `step_source` has no times for the trial, and that sums are no measurement."""
    if calibration is None or calibration.step_source is None:
        return
    try:
        with_kernel_steps(spec, calibration)
    except ConfigurationError as error:
        yield Finding(
            "error",
            "cluster.calibration.step_source",
            str(error),
            "a model, GPUs, an engine and number formats whose kernels AIConfigurator measured, or tables of "
            "steps (cluster.calibration.prefill_steps and decode_steps)",
            "its sums of kernels are the only step times that this setting has",
            "tune/sim/kernel_steps.py",
        )
        return
    yield Finding(
        "warning",
        "cluster.calibration.step_source",
        "sums of kernels that AIConfigurator measured",
        "action=calibrate with a run of your rack, which fits prefill_scale and decode_scale to it",
        "its decode steps of ten public configurations were off by -19 to +87 %: trust rankings, not figures",
        "docs/how-to/steps.md",
    )


@lru_cache(maxsize=256)
def kernel_rows(shape: KernelShape, phase: Phase) -> tuple[StepRow, ...]:
    """Return the steps of one phase, as rows of a table.

    Raises ConfigurationError where AIConfigurator is not installed, or has not measured what the steps need.
    """
    if find_spec(_LIBRARY) is None:
        raise ConfigurationError(
            "AIConfigurator is not installed; expected aiconfigurator-core. Run: pip install 'tune[kernels]'"
        )
    try:
        handle = _compiled(shape)
        return tuple(_prefill_rows(handle, shape) if phase == "prefill" else _decode_rows(handle, shape))
    except Exception as error:  # of the library: its errors have no common base
        raise ConfigurationError(
            f"AIConfigurator has no {phase} steps of {shape.model} on {shape.gpu} with {shape.engine}: "
            f"{error}"
        ) from error


def _compiled(shape: KernelShape) -> EngineHandle:
    """Return AIConfigurator's model of a worker."""
    from aiconfigurator_core.sdk.common import DefaultHFModels  # noqa: PLC0415  (an optional dependency)
    from aiconfigurator_core.sdk.engine import EngineHandle  # noqa: PLC0415

    if shape.model not in DefaultHFModels:  # it would ask Hugging Face
        known = ", ".join(sorted(DefaultHFModels))
        raise ValueError(f"it does not know the model. model.served_name may be one of {known}")
    formats: dict[str, Any] = {
        "gemm_quant_mode": shape.dense_format,
        "moe_quant_mode": shape.expert_format,
        "kvcache_quant_mode": shape.kv_format,
        "fmha_quant_mode": "bfloat16",
    }
    return EngineHandle.compile(
        shape.model,
        shape.gpu,
        shape.engine,
        tp_size=shape.tensor_parallel,
        attention_dp_size=shape.attention_ranks,
        moe_ep_size=shape.expert_parallel,
        moe_tp_size=shape.tensor_parallel * shape.attention_ranks // shape.expert_parallel,
        nextn=shape.draft_tokens,
        **formats,
    )


def _up_to(sizes: tuple[int, ...], most: int) -> list[int]:
    """Return the sizes below `most`, and `most`."""
    return [*(size for size in sizes if size < most), most]


def _prefill_rows(handle: EngineHandle, shape: KernelShape) -> Iterator[StepRow]:
    """Yield steps of one prompt and of as many as fit, at the begin of the prompts and behind a context."""
    for tokens in _up_to(_PROMPT_TOKENS, shape.tokens):
        shortest, usual = (max(1, min(shape.sequences, tokens // length)) for length in (16, 1024))
        for prompts in sorted({1, usual, shortest}):
            each = tokens // prompts
            for context in (0, *(size for size in _CONTEXTS if size + each <= shape.context)):
                milliseconds = handle.predict_prefill_latency(prompts, context + each, context)
                yield StepRow(prompts, prompts * each, prompts * context, milliseconds)


def _decode_rows(handle: EngineHandle, shape: KernelShape) -> Iterator[StepRow]:
    """Yield steps of every size of a batch with short and long contexts."""
    for batch in _up_to(_BATCHES, shape.sequences):
        for context in _up_to(_CONTEXTS, shape.context):
            milliseconds = handle.decode_step_latency(batch, context, 2)
            yield StepRow(batch, batch * (1 + shape.draft_tokens), batch * context, milliseconds)
