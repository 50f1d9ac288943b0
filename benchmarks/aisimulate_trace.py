"""Write the default trial as input of NVIDIA's AISimulate and read its prediction.

Written against aisimulate 0.13.0.dev202610270000000085: `aisimulate predict` with its engine stack and its
own step times of TensorRT-LLM on GB200.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.records.requests import RequestLog
from tune.spec.trial import TrialSpec

ITS_TIMEOUT_S = 600.0
_TRACE_BLOCK_TOKENS = 512
_MODEL, _HARDWARE = "meta-llama/Meta-Llama-3.1-405B", "gb200"
_QUANTISATION = {"gemm_quant_mode": "nvfp4", "kvcache_quant_mode": "fp8", "fmha_quant_mode": "fp8"}


class Predicted(NamedTuple):
    """Hold a prediction; `wall_s` is AISimulate's own count without its start, latencies are in seconds."""

    wall_s: float
    ttft_mean_s: float
    ttft_p99_s: float
    tpot_mean_s: float
    tpot_p99_s: float


def write_configuration(folder: Path, spec: TrialSpec, log: RequestLog) -> Path:
    """Write the trace of `log` and the configuration that replays it; return the configuration's path.

    The trace is in Mooncake's format; no two prompts share a block, so no prefix is found in a cache.
    """
    trace, blocks = folder / "trace.jsonl", 0
    with trace.open("w", encoding="utf-8") as lines:
        rows = zip(
            log.scheduled_ns.tolist(), log.input_tokens.tolist(), log.output_tokens.tolist(), strict=True
        )
        for scheduled_ns, prompt, answer in rows:
            hashes = range(blocks, blocks + -(-prompt // _TRACE_BLOCK_TOKENS))
            blocks = hashes.stop
            row = {"timestamp": scheduled_ns / 1e6, "input_length": prompt, "output_length": answer}
            lines.write(json.dumps({**row, "hash_ids": list(hashes)}) + "\n")
    source = {"type": "trace", "format": "mooncake", "paths": [str(trace)], "block_size": _TRACE_BLOCK_TOKENS}
    configuration = folder / "aisimulate.yaml"
    tree = {"traffic": {"source": source, "load": {"type": "trace_timestamps"}}, "engine": _engine(spec)}
    configuration.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return configuration


def predicted(program: str, configuration: Path) -> Predicted:
    """Run `program` on the configuration. Raises CalledProcessError or TimeoutExpired where it fails."""
    out = configuration.parent / "prediction"
    words = [program, "predict", "--config", str(configuration), "--output-dir", str(out)]
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=ITS_TIMEOUT_S)
    report = json.loads((out / "prediction.json").read_text(encoding="utf-8"))
    names = ("wall_time_ms", "mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "p99_tpot_ms")
    return Predicted(*(report[name] / 1e3 for name in names))


def _engine(spec: TrialSpec) -> dict[str, Any]:
    return {
        "mode": "disaggregated",
        "model": _MODEL,
        "hardware": _HARDWARE,
        "backend": "trtllm",
        "context_length": spec.decode.max_seq_len,
        "workers": {
            "prefill": _workers(spec.prefill, spec.split.prefill_workers),
            "decode": _workers(spec.decode, spec.split.decode_workers),
        },
    }


def _workers(engine: TrtLlmEngine, replicas: int) -> dict[str, Any]:
    return {
        "parallelism": {
            "replicas": replicas,
            "tensor": engine.tensor_parallel_size,
            "pipeline": engine.pipeline_parallel_size,
        },
        "scheduler": {
            "max_batched_tokens": engine.max_num_tokens,
            "max_sequences": engine.max_batch_size,
        },
        "timing": _QUANTISATION,
    }
