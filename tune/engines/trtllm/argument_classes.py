"""Name the parsers and classes by which Dynamo and TensorRT-LLM validate what a worker is started with."""

from __future__ import annotations

from tune.engines.dynamo.dynamo_frontends import FRONTEND_PARSERS, PACKAGE
from tune.engines.trtllm.engine_pools import trtllm_pools
from tune.manifest.argument_check import FileCheck, Validators
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

_WORKER_PARSERS: dict[str, tuple[str, ...]] = {
    "dynamo.trtllm": (
        "dynamo.trtllm.args:parse_args",
        "dynamo.trtllm.utils.trtllm_utils:cmd_line_args",
    )
}
"""Source: Dynamo, components/src/dynamo/trtllm/args.py (1.x); components/backends/trtllm/src/dynamo/trtllm/
utils/trtllm_utils.py (mid 2025)."""

_CLASSES = tuple(f"tensorrt_llm.llmapi.llm_args:{name}" for name in ("TorchLlmArgs", "LlmArgs"))
_MERGE = tuple(
    f"tensorrt_llm.llmapi.{module}:update_llm_args_with_extra_options" for module in ("llm_utils", "llm_args")
)
"""The class of arguments of the PyTorch backend, which newer versions call LlmArgs too, and the function with
which Dynamo adds the file of --extra-engine-args. Source: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py and
llm.py; Dynamo 1.6.1, components/src/dynamo/trtllm/workers/llm_worker.py."""


ENGINE_PACKAGE = "tensorrt_llm"
"""Distribution of TensorRT-LLM."""


def trtllm_validators(spec: TrialSpec, facts: ClusterFacts) -> Validators:
    """Return Dynamo's parsers of the command lines, and TensorRT-LLM's class for the files of the pools."""
    given = {
        "model": facts.model_path,
        "backend": "pytorch",
        "gpus_per_node": spec.hardware.gpus_per_node,
    }
    files = tuple(
        FileCheck(file=f"{role}.yaml", classes=_CLASSES, merge=_MERGE, given=given)
        for role, _ in trtllm_pools(spec)
    )
    return Validators(FRONTEND_PARSERS | _WORKER_PARSERS, files, packages=(PACKAGE, ENGINE_PACKAGE))
