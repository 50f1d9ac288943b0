"""Stand in for `python3 -m dynamo.vllm` without a GPU: vLLM's arguments, its log, a mock engine.

An argument that vLLM's parser does not know is refused as there. Everything else, from registration to
/metrics, is Dynamo's own, of the environment that runs this.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from vllm_arguments import vllm_parser

SEEN = Path(__file__).parents[1] / "data" / "vllm"


def main(words: list[str]) -> None:
    """Print the log of a start and become a mock engine with the same batch, cache and mode."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--disaggregation-mode", choices=["agg", "prefill", "decode"], default="agg")
    dynamo, rest = own.parse_known_args(words)
    engine = vllm_parser().parse_args(rest)
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        sys.exit("RuntimeError: No CUDA GPUs are available")
    mode = dynamo.disaggregation_mode
    if mode == "prefill" and engine.kv_transfer_config is None:
        sys.exit("ValueError: you must explicitly provide --kv-transfer-config")
    log = SEEN / f"{'prefill' if mode == 'prefill' else 'decode'}_start.log"
    print(log.read_text(encoding="utf-8"), f"\nGPUs {os.environ['CUDA_VISIBLE_DEVICES']}", flush=True)
    mock = [
        *("--model-path", engine.model, "--model-name", engine.served_model_name[0]),
        *("--disaggregation-mode", mode, "--engine-type", "vllm", "--block-size", "16"),
        *("--num-gpu-blocks-override", "52935", "--max-num-seqs", engine.max_num_seqs),
        *("--max-num-batched-tokens", engine.max_num_batched_tokens, "--max-model-len", engine.max_model_len),
        "--no-enable-prefix-caching",
    ]
    os.execv(sys.executable, [sys.executable, "-m", "dynamo.mocker", *mock])


if __name__ == "__main__":
    main(sys.argv[1:])
