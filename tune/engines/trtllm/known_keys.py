"""List the keys of TensorRT-LLM's YAML by the group that holds them, to recognise a misspelt one.

The list is no schema: a key that is not in it passes. Source: TensorRT-LLM, TorchLlmArgs in
tensorrt_llm/usage/llm_args_golden_manifest.json (92e3075; 0004396 for speculative_config), and its fields
of free form in llm_args.py (0004396): DynamicBatchConfig, MoeLoadBalancerConfig, PeftCacheConfig and the
paths of speculative decoding.
"""

from __future__ import annotations

from collections.abc import Mapping


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KNOWN_KEYS: Mapping[str, frozenset[str]] = {
    "": _words("""
        allreduce_strategy attention_dp_config attn_backend backend batch_wait_max_tokens_ratio
        batch_wait_timeout_iters batch_wait_timeout_ms cache_transceiver_config checkpoint_format
        checkpoint_loader context_parallel_size cp_config cuda_graph_config custom_tokenizer
        disable_flashinfer_sampling disable_overlap_scheduler dtype dwdp_config enable_attention_dp
        enable_autotuner enable_chunked_prefill enable_early_first_token_response enable_energy_metrics
        enable_iter_perf_stats enable_iter_req_stats enable_layerwise_nvtx_marker
        enable_lm_head_tp_in_adp enable_lora enable_min_latency enable_resource_governor
        enable_speculative_beam_history_d2h encode_only encoder_max_batch_size encoder_max_num_tokens
        force_dynamic_quantization garbage_collection_gen0_threshold gather_generation_logits gms_config
        gpus_per_node guided_decoding_backend iter_stats_max_iterations kv_cache_config
        kv_connector_config layer_wise_benchmarks_config load_format lora_config max_batch_size
        max_beam_width max_input_len max_num_tokens max_seq_len max_stats_len mm_encoder_only model
        model_kwargs moe_cluster_parallel_size moe_config moe_expert_parallel_size
        moe_tensor_parallel_size mx_config num_postprocess_workers num_serve_frontends nvfp4_gemm_config
        orchestrator_type otlp_traces_endpoint peft_cache_config perf_metrics_max_requests
        pipeline_parallel_size postprocess_tokenizer_dir pp_partition print_iter_log
        prometheus_metrics_config quant_config ray_placement_config ray_worker_extension_cls
        reasoning_parser reorder_policy_config request_stats_max_iterations return_perf_metrics revision
        sampler_force_async_worker sampler_type scheduler_config skip_tokenizer_init
        sparse_attention_config speculative_config stream_interval telemetry_config tensor_parallel_size
        tokenizer tokenizer_mode tokenizer_revision torch_compile_config trust_remote_code
        use_cute_dsl_bf16_bmm use_cute_dsl_bf16_gemm use_cute_dsl_blockscaling_bmm
        use_cute_dsl_blockscaling_mm video_pruning_rate
    """),
    "attention_dp_config": _words("""
        batching_wait_iters enable_balance enable_kv_cache_aware_routing
        kv_cache_routing_account_for_in_transfer kv_cache_routing_cold_start_warmup
        kv_cache_routing_conversation_affinity kv_cache_routing_fair_share_multiplier
        kv_cache_routing_load_balance_weight kv_cache_routing_match_rate_threshold
        kv_cache_routing_max_sessions timeout_iters
    """),
    "cache_transceiver_config": _words("""
        backend kv_cache_bounce_size_mb kv_transfer_poll_interval_ms
        kv_transfer_sender_future_timeout_ms kv_transfer_timeout_ms max_tokens_in_buffer
        transceiver_runtime
    """),
    "cuda_graph_config": _words("""
        batch_sizes enable_padding max_batch_size max_num_token max_seq_len mode num_tokens seq_lens
    """),
    "kv_cache_config": _words("""
        attention_dp_events_gather_period_ms avg_seq_len block_reuse_config block_reuse_policy
        copy_on_partial_reuse cross_kv_cache_fraction disk_cache_path disk_cache_size
        disk_prefetch_num_reqs dtype enable_block_reuse enable_kv_pool_rebalance enable_partial_reuse
        enable_swa_scratch_reuse event_buffer_max_size free_gpu_memory_fraction host_cache_size
        iteration_stats_interval kv_cache_event_hash_algo mamba_ssm_cache_dtype mamba_ssm_philox_rounds
        mamba_ssm_stochastic_rounding mamba_state_cache_interval mamba_state_config max_attention_window
        max_gpu_total_bytes max_tokens max_util_for_resume onboard_blocks pool_ratio
        secondary_offload_min_priority sink_token_length tokens_per_block use_kv_cache_manager_v2
        use_uvm
    """),
    "moe_config": _words("""
        backend disable_finalize_fusion load_balancer max_num_tokens use_low_precision_moe_combine
    """),
    "moe_config.load_balancer": _words("initial_global_assignments layer_updates_per_iter num_slots"),
    "nvfp4_gemm_config": _words("allowed_backends"),
    "peft_cache_config": _words("""
        device_cache_percent host_cache_size lora_prefetch_dir max_adapter_size
        max_pages_per_block_device max_pages_per_block_host num_copy_streams num_device_module_layer
        num_ensure_workers num_host_module_layer num_put_workers optimal_adapter_size
    """),
    "scheduler_config.dynamic_batch_config": _words("""
        dynamic_batch_moving_average_window enable_batch_size_tuning enable_max_num_tokens_tuning
    """),
    "speculative_config": _words("""
        acceptance_length_threshold acceptance_rate_threshold acceptance_rate_window_size
        acceptance_window advanced_sampling_mode allow_advanced_sampling attention_backend
        begin_thinking_phase_token block_size decoding_type draft_len_schedule dynamic_tree_max_topK
        eagle3_layers_to_capture eagle3_model_arch eagle3_one_model eagle_choices enable_global_pool
        enable_penalty end_thinking_phase_token global_pool_size greedy_sampling is_keep_all
        is_public_pool is_use_oldest load_format markov_head_type markov_rank mask_token_id
        max_concurrency max_draft_len max_matching_ngram_size max_non_leaves_per_layer
        max_total_draft_tokens mtp_eagle_one_model num_eagle_layers num_nextn_predict_layers
        posterior_threshold pytorch_weights_path relaxed_delta relaxed_topk sa_config
        speculative_model speculative_model_dir target_layer_ids use_dynamic_tree use_mtp_vanilla
        use_rejection_sampling use_relaxed_acceptance_for_thinking write_interval
    """),
    "speculative_config.sa_config": _words("enable_global_pool threshold"),
    "scheduler_config": _words("""
        capacity_scheduler_policy context_chunking_policy dynamic_batch_config
        enable_prefix_aware_scheduling use_python_scheduler waiting_queue_policy
    """),
    "torch_compile_config": _words("""
        capture_num_tokens enable_fullgraph enable_inductor enable_piecewise_cuda_graph
        enable_userbuffers max_num_streams
    """),
}
"""Names of keys by the path of their group; "" is the top of the YAML."""

FLAT_KEYS = _words("""
    attention_dp_config attn_backend autotuner_enabled backend batched_logits_processor batching_type
    build_config cache_transceiver_config context_parallel_size cp_config cuda_graph_batch_sizes
    cuda_graph_max_batch_size cuda_graph_padding_enabled decoding_config disable_overlap_scheduler dtype
    enable_attention_dp enable_chunked_prefill enable_iter_perf_stats enable_iter_req_stats
    enable_layerwise_nvtx_marker enable_lora enable_min_latency enable_prompt_adapter
    enable_trtllm_sampler garbage_collection_gen0_threshold gather_generation_logits gpus_per_node
    guided_decoding_backend iter_stats_max_iterations kv_cache_config kv_cache_dtype load_format
    lora_config max_batch_size max_beam_width max_cpu_loras max_input_len max_lora_rank max_loras
    max_num_tokens max_prompt_adapter_token max_seq_len mixed_sampler model moe_backend
    moe_cluster_parallel_size moe_expert_parallel_size moe_load_balancer moe_max_num_tokens
    moe_tensor_parallel_size normalize_log_probs num_postprocess_workers peft_cache_config
    pipeline_parallel_size postprocess_tokenizer_dir print_iter_log quant_config reasoning_parser
    request_stats_max_iterations revision scheduler_config skip_tokenizer_init speculative_config
    stream_interval tensor_parallel_size tokenizer tokenizer_mode tokenizer_revision
    torch_compile_config trust_remote_code use_cuda_graph
""")
"""All top-level names of the flat generation, whose class refuses any other.
Source: TensorRT-LLM cd2f9fa (1.0.0rc), BaseLlmArgs and TorchLlmArgs in tensorrt_llm/llmapi/llm_args.py."""
