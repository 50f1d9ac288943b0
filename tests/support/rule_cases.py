"""List trials that break a rule, trials with a costly choice, and neighbours of both that are fine."""

from __future__ import annotations

from typing import Any

V1 = {"stack__name": "dynamo_v1", "stack__engine_yaml": "nested"}


GRAPHS = "decode__cuda_graph_config__batch_sizes"
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no prefill": ({"split__prefill_workers": 0}, "split.prefill_workers"),
    "no decode": ({"split__decode_workers": 0}, "split.decode_workers"),
    "one worker too many": ({"split__decode_workers": 5}, "split"),
    "two TP8 too many": (
        {"decode__tensor_parallel_size": 8, "split__prefill_workers": 15, "split__decode_workers": 2},
        "split",
    ),
    "TP3": ({"decode__tensor_parallel_size": 3}, "decode.tensor_parallel_size"),
    "six GPUs a worker": (
        {"prefill__tensor_parallel_size": 2, "prefill__pipeline_parallel_size": 3},
        "prefill.tensor_parallel_size",
    ),
    "kv events before 1.0": (
        {"stack__router_mode": "least-loaded", "stack__name": "dynamo_v07"},
        "stack.router_mode",
    ),
    "requests over TCP in mid 2025": ({"stack__request_plane": "tcp"}, "stack.request_plane"),
    "files in mid 2025": ({"stack__discovery": "file"}, "stack.discovery"),
    "more stages than layers": ({"decode__pipeline_parallel_size": 128}, "decode.pipeline_parallel_size"),
    "prompt does not fit prefill": ({"prefill__max_seq_len": 20010}, "prefill.max_seq_len"),
    "prompt does not fit decode": ({"decode__max_seq_len": 20010}, "decode.max_seq_len"),
    "prompts longer than the longest": (
        {"load__dataset__inputs__max_tokens": 20011},
        "load.dataset.inputs.max_tokens",
    ),
    "more queries than memory": ({"load__target_qps": 1e12}, "load.target_qps"),
    "a run of years": ({"load__target_qps": 1e-8}, "load.target_qps"),
    "unchunked prefill": ({"prefill__enable_chunked_prefill": False}, "prefill.max_num_tokens"),
    "prefill unchunked by default": ({"prefill__enable_chunked_prefill": None}, "prefill.max_num_tokens"),
    "chunk below a block": ({"prefill__max_num_tokens": 31}, "prefill.max_num_tokens"),
    "buffer of part blocks": (
        {"prefill__cache_transceiver_config__max_tokens_in_buffer": 20193},
        "prefill.cache_transceiver_config.max_tokens_in_buffer",
    ),
    "buffer below the prompt": (
        V1 | {"decode__cache_transceiver_config__max_tokens_in_buffer": 19968},
        "decode.cache_transceiver_config.max_tokens_in_buffer",
    ),
    "DeepSeek's layout for KV heads": (
        V1 | {f"{role}__kv_cache_config__dtype": "fp8_ds_mla" for role in ("prefill", "decode")},
        "decode.kv_cache_config.dtype",
    ),
    "KV of two kinds": ({"decode__kv_cache_config__dtype": "bfloat16"}, "decode.kv_cache_config.dtype"),
    "weights do not fit": (
        {"decode__tensor_parallel_size": 1, "split__decode_workers": 16},
        "decode.tensor_parallel_size",
    ),
    "KV cache too small": (
        {"decode__kv_cache_config__free_gpu_memory_fraction": 0.01},
        "decode.kv_cache_config.free_gpu_memory_fraction",
    ),
    "backend in flat YAML": (
        {
            "prefill__cache_transceiver_config__backend": "UCX",
            "decode__cache_transceiver_config__backend": "UCX",
        },
        "decode.cache_transceiver_config.backend",
    ),
    "two backends": (
        V1 | {"decode__cache_transceiver_config__backend": "UCX"},
        "decode.cache_transceiver_config.backend",
    ),
    "KV of the checkpoint and another": (
        {"model__kv_dtype": "nvfp4", "decode__kv_cache_config__dtype": "auto"},
        "decode.kv_cache_config.dtype",
    ),
    "strategy without a flag": (
        V1 | {"split__disaggregation_strategy": "decode_first"},
        "split.disaggregation_strategy",
    ),
    "flat YAML for today's stack": ({"stack__name": "dynamo_v1"}, "stack.engine_yaml"),
    "typed key in extra": ({"decode__extra": {"max_batch_size": 1}}, "decode.extra.max_batch_size"),
    "flat spelling in extra": ({"decode__extra": {"use_cuda_graph": True}}, "decode.extra.use_cuda_graph"),
    "today's key in flat YAML": ({"prefill__extra": {"moe_config": {}}}, "prefill.extra.moe_config"),
    "today's option of attention DP in flat YAML": (
        {"prefill__extra": {"attention_dp_config": {"kv_cache_routing_max_sessions": 1}}},
        "prefill.extra.attention_dp_config.kv_cache_routing_max_sessions",
    ),
    "today's option of Torch's compiler in flat YAML": (
        {"prefill__extra": {"torch_compile_config": {"max_num_streams": 2}}},
        "prefill.extra.torch_compile_config.max_num_streams",
    ),
    "today's chunking policy in flat YAML": (
        {"prefill__scheduler_config": {"context_chunking_policy": "FORCE_CHUNK"}},
        "prefill.scheduler_config.context_chunking_policy",
    ),
    "flat key in today's YAML": (
        V1 | {"prefill__extra": {"moe_backend": "CUTLASS"}},
        "prefill.extra.moe_backend",
    ),
    "internal name in today's YAML": (
        V1 | {"prefill__extra": {"torch_compile_enabled": True}},
        "prefill.extra.torch_compile_enabled",
    ),
    "internal name in flat YAML": (
        {"prefill__extra": {"torch_compile_enabled": True}},
        "prefill.extra.torch_compile_enabled",
    ),
    "today's key in a flat group": (
        {"decode__kv_cache_config__tokens_per_block": 64},
        "decode.kv_cache_config.tokens_per_block",
    ),
    "today's other key in a flat group": (
        {"decode__cache_transceiver_config__kv_transfer_timeout_ms": 1},
        "decode.cache_transceiver_config.kv_transfer_timeout_ms",
    ),
    "two largest graphs": (
        V1 | {"decode__cuda_graph_config__max_batch_size": 256},
        "decode.cuda_graph_config.max_batch_size",
    ),
    "buffer of half a block": (
        V1 | {"prefill__kv_cache_config__tokens_per_block": 64},
        "prefill.cache_transceiver_config.max_tokens_in_buffer",
    ),
    "TP4 x CP4 on every GPU": ({"decode__context_parallel_size": 4}, "split"),
}


COSTLY: dict[str, tuple[dict[str, Any], str, str]] = {
    "files of several nodes": (
        {"stack__name": "dynamo_v1", "stack__engine_yaml": "nested", "stack__discovery": "file"},
        "stack.discovery",
        "does not see what other nodes write",
    ),
    "KV of a checkpoint whose format is not stated": (
        {"decode__kv_cache_config__dtype": "auto"},
        "decode.kv_cache_config.dtype",
        "byte for byte",
    ),
    "a default that a variable chooses": (
        V1
        | {
            "prefill__env": {"TRTLLM_USE_UCX_KVCACHE": "1"},
            "decode__cache_transceiver_config__backend": "UCX",
        },
        "decode.cache_transceiver_config.backend",
        "which one DEFAULT is depends on version and variables",
    ),
    "the default of an earlier version": (
        {
            "stack__name": "dynamo_v04",
            "stack__engine_yaml": "nested_1_0",
            "decode__cache_transceiver_config__backend": "NIXL",
        },
        "decode.cache_transceiver_config.backend",
        "which one DEFAULT is depends on version and variables",
    ),
    "idle node": ({"split__decode_workers": 3}, "split", "5.6% of them do nothing"),
    "replicated KV heads": (
        {"decode__tensor_parallel_size": 16, "split__decode_workers": 1},
        "decode.tensor_parallel_size",
        "replicated 2 times",
    ),
    "no room for MTP's draft tokens": (
        {
            "decode__extra": {"speculative_config": {"decoding_type": "MTP", "max_draft_len": 3}},
            "decode__max_num_tokens": 2047,
            "decode__max_batch_size": 512,
        },
        "decode.max_num_tokens",
        "no more than 511 decode at once",
    ),
    "part of a block": (
        {"prefill__max_num_tokens": 4100},
        "prefill.max_num_tokens",
        "4 tokens of a full step",
    ),
    "fewer tokens than sequences": (
        {"decode__max_num_tokens": 511},
        "decode.max_num_tokens",
        "no more than 511 decode at once",
    ),
    "graphs too small": ({GRAPHS: [1, 2, 4]}, "decode.cuda_graph_config.batch_sizes", "without a CUDA graph"),
    "buffer below the prompt, in mid 2025": (
        {"decode__cache_transceiver_config__max_tokens_in_buffer": 19968},
        "decode.cache_transceiver_config.max_tokens_in_buffer",
        "memory is allocated at each transfer",
    ),
    "buffer below the prompt, over UCX": (
        V1
        | {
            "decode__cache_transceiver_config__max_tokens_in_buffer": 19968,
            "decode__cache_transceiver_config__backend": "UCX",
            "prefill__cache_transceiver_config__backend": "UCX",
        },
        "decode.cache_transceiver_config.max_tokens_in_buffer",
        "memory is allocated at each transfer",
    ),
    "no graph size": (
        {GRAPHS: [], "decode__max_batch_size": 128},
        "decode.cuda_graph_config.batch_sizes",
        "sizes of its own, up to 128",
    ),
    "graphs above the batch": (
        {"decode__max_batch_size": 128, GRAPHS: [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 512]},
        "decode.cuda_graph_config.batch_sizes",
        "leaves larger sizes out",
    ),
    "graphs in prefill": (
        {"prefill__cuda_graph_config": {"batch_sizes": [1, 2]}},
        "prefill.cuda_graph_config.batch_sizes",
        "decode-only batches",
    ),
    "key that Dynamo takes out": (
        {
            "stack__name": "dynamo_v1",
            "stack__engine_yaml": "nested",
            "prefill__extra": {"num_postprocess_workers": 4},
        },
        "prefill.extra.num_postprocess_workers",
        "takes the key out",
    ),
    "overlap scheduler in prefill before 1.3.0rc1": (
        {
            "stack__name": "dynamo_v07",
            "stack__engine_yaml": "nested",
            "prefill__disable_overlap_scheduler": None,
        },
        "prefill.disable_overlap_scheduler",
        "refuses every request",
    ),
    "short run": (
        {"load__concatenate_permutation": False, "load__min_duration_s": 1.0},
        "load.min_queries",
        "no verdict",
    ),
}


NEIGHBOURS: dict[str, tuple[dict[str, Any], str]] = {
    "postprocessing by the engine": (
        {"prefill__extra": {"num_postprocess_workers": 4}},
        "prefill.extra.num_postprocess_workers",
    ),
    "overlap scheduler in prefill since 1.3": (
        V1 | {"prefill__disable_overlap_scheduler": None},
        "prefill.disable_overlap_scheduler",
    ),
    "a full rack": ({"split__prefill_workers": 13, "split__decode_workers": 5}, "split"),
    "TP8 over two nodes": (
        {"decode__tensor_parallel_size": 8, "split__decode_workers": 2},
        "decode.tensor_parallel_size",
    ),
    "two TP2 on a node": (
        {"prefill__tensor_parallel_size": 2, "split__prefill_workers": 28},
        "split",
    ),
    "one token of answer": ({"prefill__max_seq_len": 20011}, "prefill.max_seq_len"),
    "room for all": ({"decode__max_seq_len": 22010}, "decode.max_seq_len"),
    "unchunked, big enough": (
        {"prefill__enable_chunked_prefill": False, "prefill__max_num_tokens": 20010},
        "prefill.max_num_tokens",
    ),
    "one block": ({"prefill__max_num_tokens": 32}, "prefill.max_num_tokens"),
    "least buffer": (
        {"decode__cache_transceiver_config__max_tokens_in_buffer": 20032},
        "decode.cache_transceiver_config.max_tokens_in_buffer",
    ),
    "strategy with a flag": (
        {"split__disaggregation_strategy": "decode_first"},
        "split.disaggregation_strategy",
    ),
    "Torch's compiler in flat YAML": (
        {"prefill__extra": {"torch_compile_config": {"enable_inductor": True}}},
        "prefill.extra.torch_compile_config.enable_inductor",
    ),
    "attention DP in flat YAML": (
        {"prefill__extra": {"attention_dp_config": {"timeout_iters": 50}}},
        "prefill.extra.attention_dp_config.timeout_iters",
    ),
    "flat keys of a group": (
        {"prefill__kv_cache_config__host_cache_size": 0, "prefill__kv_cache_config__use_uvm": True},
        "prefill.kv_cache_config.use_uvm",
    ),
    "buffer of the engine's size": (
        V1 | {"prefill__cache_transceiver_config__max_tokens_in_buffer": None},
        "prefill.cache_transceiver_config.max_tokens_in_buffer",
    ),
    "buffer that the Python runtime has not": (
        V1
        | {
            "prefill__cache_transceiver_config__max_tokens_in_buffer": 8192,
            "prefill__cache_transceiver_config__transceiver_runtime": "PYTHON",
        },
        "prefill.cache_transceiver_config.max_tokens_in_buffer",
    ),
    "buffer of a runtime that the engine chooses": (
        V1
        | {
            "prefill__cache_transceiver_config__max_tokens_in_buffer": 8192,
            "prefill__cache_transceiver_config__transceiver_runtime": "auto",
        },
        "prefill.cache_transceiver_config.max_tokens_in_buffer",
    ),
    "room for draft tokens by their older name": (
        {
            "decode__extra": {"speculative_config": {"decoding_type": "MTP", "num_nextn_predict_layers": 3}},
            "decode__max_num_tokens": 2048,
            "decode__max_batch_size": 512,
        },
        "decode.max_num_tokens",
    ),
    "one KV head in DeepSeek's layout": (
        V1
        | {
            "model__kv_heads": 1,
            **{f"{role}__kv_cache_config__dtype": "fp8_ds_mla" for role in ("prefill", "decode")},
        },
        "decode.kv_cache_config.dtype",
    ),
    "KV of the checkpoint by two names": (
        {"model__kv_dtype": "fp8", "decode__kv_cache_config__dtype": "auto"},
        "decode.kv_cache_config.dtype",
    ),
    "today's default by two names": (
        V1 | {"decode__cache_transceiver_config__backend": "NIXL"},
        "decode.cache_transceiver_config.backend",
    ),
    "the same largest graph": (
        V1 | {"decode__cuda_graph_config__max_batch_size": 512},
        "decode.cuda_graph_config.max_batch_size",
    ),
    "an unknown key": ({"decode__extra": {"print_iter_log": True}}, "decode.extra.print_iter_log"),
    "least queries": (
        {
            "load__concatenate_permutation": False,
            "load__min_duration_s": 1.0,
            "load__min_queries": 459,
        },
        "load.min_queries",
    ),
}
