"""List the unit and the meaning of every setting, for `--help` and docs/reference/settings.md."""

# One row per setting, so lines are long.
# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from tune.spec.engine import Engine, Meaning
from tune.spec.metrics import LIMITS

COMMAND: dict[str, Meaning] = {
    "action": ("", "What the command does."),
    "trial": (
        "",
        "A trial by its id or its number, for action=status, logs, cancel and export; export takes best, too, and null "
        "is the best one there.",
    ),
    "logs": ("", "Folder with LoadGen's logs, for action=parse, or with the logs of workers, for action=steps."),
    "recipe": ("", "File with a recipe of another program, or FILE:VARIANT, for action=import."),
    "to": ("", "Folder of configuration that action=import writes, or CSV file that action=steps writes."),
    "rerun": ("", "Whether to make a new attempt of a trial that is already on record."),
    "runs_dir": ("", "Folder of the records of all studies."),
    "reports_dir": ("", "Folder of all reports."),
    "confirm.configurations": ("configurations", "Kinds (split and parallelism) of which action=confirm measures the best."),
    "confirm.repeats": ("deployments", "New deployments of each confirmed configuration."),
    "confirm.confidence": ("fraction", "Probability that one further full run at a guaranteed rate holds."),
    "confirm.accuracy": ("", "Whether the winner, at its guaranteed rate, also has to answer as accurately as the benchmark demands; the study needs its .pkl."),
    "compare.a": ("", "First study, or trial as STUDY/TRIAL_ID, for action=compare."),
    "compare.b": ("", "Second study, or trial as STUDY/TRIAL_ID, for action=compare."),
    "calibrate.study": ("", "Study whose measured trials action=calibrate fits."),
    "calibrate.learned": ("", "Study with search=surrogate whose posterior is written as a calibration, without a fit."),
    "calibrate.trials": ("", "Ids or numbers of the trials to fit; null: every measured one."),
    "calibrate.logs": ("", "Folder with LoadGen's logs of the run that the other settings describe."),
    "calibrate.runs": ("", "YAML file with several runs: a list of {logs: DIR, overrides: [...]}."),
    "calibrate.parameters": ("", "Parameters to fit."),
    "calibrate.to": ("", "File to write, DIR/cluster/NAME.yaml; null: only print the result."),
    "export.to": (
        "",
        "Format of action=export: optuna is of the whole study, the others are of one trial (docs/how-to/export.md).",
    ),
    "export.file": (
        "",
        "File to write, with export.to=sbatch and mlperf a folder; null: in REPORTS_DIR/STUDY. With export.to=optuna "
        "SQLite where it ends in .db or .sqlite3.",
    ),
    "export.submitter": ("", "With export.to=mlperf: YAML file with submitter, division, status, and fields of system and measurements; null: placeholders."),
}

STUDY: dict[str, Meaning] = {
    "study.name": ("", "Name of the study and of its folders; null: SWEEP-CLUSTER, or single-CLUSTER."),
    "study.n_trials": ("trials", "Trials of the study; null: the number in the sweep. A larger number extends a study."),
    "study.seed": ("", "Seed of the search."),
    "study.parallel": ("trials", "Trials that run at once; fixed for a study. null on the simulated rack: 1 that searches for its capacity, 3 of search=tpe or gp, else 16. null elsewhere: 1."),
    "study.retries": ("attempts", "How often one command runs a trial again whose infrastructure failed, or whose measurement is not valid for a reason that may pass."),
    "study.trials_per_job": ("trials", "With cluster=slurm: trials that share one allocation, one after the other."),
    "study.once": ("", "With cluster=slurm: collect what has ended, submit what is due and exit (code 3 while trials run)."),
    "study.max_gpu_hours": ("GPU-hours", "Budget, which is never exceeded: the study ends before a trial that needs more, and a trial that uses it up is stopped; null: none."),
    "study.min_gain": ("fraction", "With search=surrogate: stop when the expected gain of another trial is below this share of the best rate."),
    "study.baseline": ("", "Whether trial 0 is the configuration as composed."),
    "search.name": ("", "Search method; null: surrogate with load.mode=capacity, else tpe."),
    "search.startup_trials": ("trials", "Random trials before tpe or gp begins to model."),
    "search.early_stop": ("", "With load.mode=capacity: end a deployment early that cannot beat the best so far."),
}

SWEEP: dict[str, Meaning] = {
    "sweep.question": ("", "The question that the study answers, in words."),
    "sweep.n_trials": ("trials", "Trials of the study unless study.n_trials says otherwise."),
    "sweep.fill_decode": ("", "Whether decode workers get every GPU that the prefill workers leave free, and aggregated ones as many as fit."),
    "sweep.space.NAME.kind": ("", "Kind of the dimension."),
    "sweep.space.NAME.path": ("", "Setting of the trial that the dimension varies; for graph_family the pool."),
    "sweep.space.NAME.low": ("as the setting", "Lowest value of an int or float dimension."),
    "sweep.space.NAME.high": ("as the setting", "Highest value of an int or float dimension."),
    "sweep.space.NAME.step": ("as the setting", "Distance of neighbouring values; required of a float by search=grid."),
    "sweep.space.NAME.log": ("", "Whether a float dimension is sampled on a log scale."),
    "sweep.space.NAME.values": ("as the setting", "Values of an ordered, choice or graph_family dimension."),
}

RACK: dict[str, Meaning] = {
    "model.config": ("", "Path of a checkpoint's config.json, from which the other settings of `model` are read; null: they are stated."),
    "model.name": ("", "Name of the model in records and reports."),
    "model.served_name": ("", "Name under which the endpoint serves the model."),
    "model.layers": ("layers", "Transformer layers."),
    "model.hidden_size": ("elements", "Width of the residual stream."),
    "model.attention_heads": ("heads", "Query heads of a layer."),
    "model.kv_heads": ("heads", "Key and value heads of a layer; 1 with MLA."),
    "model.head_size": ("elements", "Width of a head; with MLA half of what the cache holds of a token and layer, (kv_lora_rank + qk_rope_head_dim) / 2."),
    "model.ffn_size": ("elements", "Width of the feed-forward layer."),
    "model.vocabulary_size": ("tokens", "Entries of the vocabulary."),
    "model.linear_parameters": ("parameters", "Weights in linear layers, which every token multiplies."),
    "model.weight_dtype": ("", "Data type of the weights in the checkpoint."),
    "model.checkpoint_bytes": ("bytes", "Size of the checkpoint, over all GPUs of a worker."),
    "model.experts": ("experts", "Routed experts of a layer; null: a dense model. A model with experts runs only where nothing is simulated."),
    "model.experts_per_token": ("experts", "Routed experts that a token passes through."),
    "model.expert_ffn_size": ("elements", "Width of one expert; null: memory is counted as if experts were sharded as all other weights."),
    "model.shared_experts": ("experts", "Experts of a layer that every token passes through."),
    "model.dense_layers": ("layers", "Layers without experts."),
    "model.attention": ("", "Multi-head latent attention (mla), else heads of keys and values (gqa, also null)."),
    "model.sliding_window_tokens": ("tokens", "Tokens that layers with sliding-window attention see; null: none has it."),
    "model.sliding_layers": ("layers", "Layers with sliding-window attention."),
    "model.attention_dtype": ("", "Data type of the weights of attention and MTP layers; null: `weight_dtype`."),
    "model.kv_dtype": ("", "Data type for which the checkpoint has scales of its KV cache, which dtype auto follows; null: none."),
    "model.mtp_layers": ("layers", "Layers of multi-token prediction (MTP) in the checkpoint."),
    "model.repository": ("", "Repository of the checkpoint at Hugging Face, for the command that downloads it; null: unknown."),
    "model.context_tokens": ("tokens", "Longest sequence that the model takes; null: not checked."),
    "hardware.name": ("", "Name of the rack in records and reports."),
    "hardware.nodes": ("nodes", "Nodes that a trial allocates."),
    "hardware.gpus_per_node": ("GPUs", "GPUs of a node; nodes x GPUs is the denominator of tokens/s per GPU."),
    "hardware.hbm_bytes": ("bytes", "Memory of a GPU."),
    "hardware.hbm_bytes_per_s": ("bytes/s", "Memory bandwidth of a GPU."),
    "hardware.fp4_flop_per_s": ("FLOP/s", "Dense FP4 rate of a GPU."),
    "hardware.fp8_flop_per_s": ("FLOP/s", "Dense FP8 rate of a GPU."),
    "hardware.bf16_flop_per_s": ("FLOP/s", "Dense BF16 rate of a GPU."),
    "hardware.nvlink_bytes_per_s": ("bytes/s", "NVLink bandwidth of a GPU, one way."),
    "split.prefill_workers": ("workers", "Prefill workers."),
    "split.decode_workers": ("workers", "Decode workers."),
    "split.aggregated_workers": ("workers", "Aggregated workers, which prefill and decode; above 0 the deployment has no other pool (split=aggregated)."),
    "split.disaggregation_strategy": ("", "With stack=dynamo_v0: the pool whose workers are the registered endpoint."),
    "split.head": ("", "Pool whose first worker shares node 0 with services, first frontend and load client; none: no worker does."),
    "split.frontends": ("frontends", "Frontends, one a node from node 0 on, each on the port after that of the one before; the load client uses all of them."),
    "split.frontend_choice": ("", "How the load client chooses the frontend of a request: in turn, or the one whose unanswered requests have the fewest prompt tokens."),
    "stack.name": ("", "Generation of the serving software."),
    "stack.engine": ("", "Engine behind Dynamo, by its name in tune/spec/engine_table.py; it decides which settings the pools have."),
    "stack.engine_yaml": ("", "Generation of the engine's settings file, by a name that the engine knows."),
    "stack.router_mode": ("", "How a frontend routes requests to the workers of a pool."),
    "stack.frontend_port": ("port", "Port of the first frontend, on node 0."),
    "stack.etcd_client_port": ("port", "Port of etcd for its clients."),
    "stack.etcd_peer_port": ("port", "Port of etcd for its peers."),
    "stack.nats_port": ("port", "Port of NATS."),
    "stack.engine_schema": ("", "File with the arguments of the engine's version in use: keys of its settings file are checked against it. null: only keys that look misspelt are named."),
    "stack.env": ("", "Environment variables of services, frontends and client, by name; null as in prefill.env."),
    "stack.request_plane": ("", "How requests reach the workers: tcp or nats; null: as the generation does, nats before Dynamo 1.0."),
    "stack.discovery": ("", "By what processes find each other: etcd, or file, a folder on one machine (Dynamo 1.x); null: etcd."),
    "stack.system_port": ("port", "Port of the first worker's /health and /metrics, one port more for each next worker; null: none."),
}

EVERY_ENGINE: dict[str, Meaning] = {
    "env": ("", "Environment variables of every worker of the pool, by name. null: the value in the shell that starts tune, which no record holds."),
}
"""Settings of a pool that every engine has, below `prefill.`, `decode.` and `aggregated.`."""

LOAD: dict[str, Meaning] = {
    "load.mode": ("", "fixed: one run at target_qps; capacity: the highest rate that holds the SLO, on one deployment; concurrency: a closed loop, one run of `concurrency` users; null: capacity in a study of more than the rate on cluster=local or slurm, else fixed."),
    "load.resolution": ("fraction", "With mode=capacity: share of the rate by which the result may be too low."),
    "load.rate_range_qps": ("queries/s", "With mode=capacity: the range in which the search begins; it goes on beyond an end where a run held, or missed at the lower one. Equal ends try that rate alone. null: the ends of the sweep's load.target_qps, if it has one."),
    "load.target_qps": ("queries/s", "Mean rate of the arrivals; with mode=capacity where the search begins. null with load=mlperf_interactive: 15.75 x GPUs / 72, as the published system recommends. A trace is scaled to the rate by one factor; null there: its own rate. null with mode=concurrency."),
    "load.concurrency": ("users", "With mode=concurrency: users who each send the next query when their last answer has ended. null: an open loop."),
    "load.min_duration_s": ("s", "Shortest duration of the arrivals; a closed loop ends by its queries."),
    "load.min_queries": ("queries", "Fewest queries of a run; a closed loop has at least 10 of each user, too."),
    "load.concatenate_permutation": ("", "Of an open loop: whether the number of queries is rounded up to whole passes over the dataset, as the benchmark demands."),
    "load.seed": ("", "Seed of the arrival schedule; mlperf: LoadGen's published one of v5.1. That of another round brings the round's other seeds."),
    "load.shuffle_seed": ("", "Seed of the order of the lengths. A trace keeps its own order."),
    "load.client_concurrency": ("requests", "Most requests that the load client keeps in flight."),
    "load.request_timeout_s": ("s", "Limit from sending a request to its first token."),
    "load.response_timeout_s": ("s", "Limit from sending a request to its last token."),
    "load.api": ("", "completions sends prompts as token ids; chat sends text, and the server adds the model's template."),
    "load.accuracy": ("", "Whether an accuracy run follows on the same deployment: every sample once, against the reference answers of the benchmark's .pkl."),
    "load.trace": ("", "With load=trace: the arrivals are those in the dataset's file; absent: Poisson arrivals."),
    "load.trace.time_unit": ("", "Unit of timestamps that are numbers; dates are read as they are."),
    "load.dataset.name": ("", "Name of the dataset in records and reports; null: that of its file."),
    "load.dataset.samples": ("prompts", "Prompts of the dataset; null: the rows of its file."),
    "load.dataset.longest_prompt_tokens": ("tokens", "Longest prompt; null: that of the file or the distribution."),
    "load.dataset.longest_answer_tokens": ("tokens", "Longest answer: generation stops there; null: that of the file or the distribution."),
    "load.dataset.path": ("", "File of lengths (CSV or JSON lines), or the benchmark's .pkl; shipped:NAME comes with tune; null: lengths are drawn as inputs and outputs say."),
    "load.dataset.sha256": ("", "SHA-256 of that file: filled in when the configuration is composed, checked where given."),
    "load.dataset.inputs": ("", "Distribution of the prompt lengths; null: the file has them."),
    "load.dataset.inputs.kind": ("", "Kind of the distribution of the prompt lengths: range with load=fixed, lognormal with load=lognormal, measured with load=mlperf_llama3_1_405b."),
    "load.dataset.inputs.mean_tokens": ("tokens", "Mean prompt length."),
    "load.dataset.inputs.median_tokens": ("tokens", "Median prompt length, instead of the mean of a lognormal distribution."),
    "load.dataset.inputs.sd_tokens": ("tokens", "Standard deviation of the prompt lengths."),
    "load.dataset.inputs.p95_tokens": ("tokens", "The 95th percentile of the prompt lengths, instead of the standard deviation of a lognormal distribution."),
    "load.dataset.inputs.min_tokens": ("tokens", "Shortest prompt that is drawn."),
    "load.dataset.inputs.max_tokens": ("tokens", "Longest prompt that is drawn."),
    "load.dataset.inputs.tokens": ("tokens", "With load=fixed: prompt length."),
    "load.dataset.inputs.range_ratio": ("fraction", "With load=fixed: width of the range of prompt lengths, as range_rule reads it."),
    "load.dataset.inputs.range_rule": ("", "With load=fixed: vllm is tokens x (1 - range_ratio) to tokens x (1 + range_ratio), inferencex is tokens x range_ratio to tokens."),
    "load.dataset.outputs": ("", "Distribution of the answer lengths; null: the file has them."),
    "load.dataset.outputs.kind": ("", "Kind of the distribution of the answer lengths; without one, they have the shape of the benchmark's."),
    "load.dataset.outputs.mean_tokens": ("tokens", "Mean answer length."),
    "load.dataset.outputs.cap_frac": ("fraction", "Share of answers at longest_answer_tokens."),
    "load.dataset.outputs.median_tokens": ("tokens", "Median answer length, instead of the mean of a lognormal distribution."),
    "load.dataset.outputs.sd_tokens": ("tokens", "Standard deviation of the answer lengths."),
    "load.dataset.outputs.p95_tokens": ("tokens", "The 95th percentile of the answer lengths, instead of the standard deviation of a lognormal distribution."),
    "load.dataset.outputs.min_tokens": ("tokens", "Shortest answer that is drawn."),
    "load.dataset.outputs.max_tokens": ("tokens", "Longest answer that is drawn."),
    "load.dataset.outputs.tokens": ("tokens", "With load=fixed: answer length."),
    "load.dataset.outputs.range_ratio": ("fraction", "With load=fixed: width of the range of answer lengths, as range_rule reads it."),
    "load.dataset.outputs.range_rule": ("", "With load=fixed: as that of the prompts."),
}

CLUSTER: dict[str, Meaning] = {
    "cluster.kind": ("", "Backend: the simulated rack, this machine or Slurm."),
    "cluster.job_name": ("", "Name of the Slurm job."),
    "cluster.partition": ("", "sbatch --partition; null: not given."),
    "cluster.account": ("", "sbatch --account; null: not given."),
    "cluster.qos": ("", "sbatch --qos; null: not given."),
    "cluster.reservation": ("", "sbatch --reservation; null: not given."),
    "cluster.time_limit": ("[days-]h:min[:s]", "Time limit of a job."),
    "cluster.signal_s": ("s", "Time before the limit at which a job stops by itself and writes its record."),
    "cluster.exclusive": ("", "Whether no other job may share the nodes."),
    "cluster.gpus_per_node_option": ("", "Whether GPUs are generic resources: job and workers request --gpus-per-node."),
    "cluster.output": ("", "Output file of a job.sbatch that is submitted by hand."),
    "cluster.container_image": ("", "Image for pyxis, in which the job's steps run; null: steps run on the nodes as they are."),
    "cluster.image": ("", "What action=image builds into container_image; null: nothing."),
    "cluster.image.name": ("", "Name of the image in docker, without a tag."),
    "cluster.image.dynamo_commit": ("", "Commit of Dynamo."),
    "cluster.image.engine_commit": ("", "Commit of the engine."),
    "cluster.image.platform": ("", "Architecture of the nodes."),
    "cluster.container_mounts": ("", "Mounts as SOURCE:TARGET; the plan's folder is mounted as well."),
    "cluster.container_workdir": ("", "Working directory in the container; null: the image's own."),
    "cluster.container_remap_root": ("", "Whether the user is root inside the container."),
    "cluster.container_mount_home": ("", "Whether the home directory is mounted."),
    "cluster.container_keep": ("", "Whether the unpacked image is kept for later trials of the same job."),
    "cluster.srun_options": ("", "Further long options of srun for every step, such as --cpu-bind=verbose,none; those of pyxis reach the steps in the image."),
    "cluster.mpi": ("", "Option --mpi of srun for the ranks of a worker."),
    "cluster.command_prefix.prefill": ("", "Words before the command of every prefill worker, such as [numactl, -m, \"0,1\"]."),
    "cluster.command_prefix.decode": ("", "Words before the command of every decode worker."),
    "cluster.command_prefix.aggregated": ("", "Words before the command of every aggregated worker."),
    "cluster.command_prefix.frontend": ("", "Words before the command of every frontend."),
    "cluster.load_stagger_s": ("s", "Time between the starts of workers that share a node; with TensorRT-LLM behind Dynamo before 1.0 at least 60 s, as they may look for a free port."),
    "cluster.srun_env": ("", "Environment variables of srun itself, by name, such as those of enroot; null as in prefill.env."),
    "cluster.model_path": ("", "Folder of the checkpoint as the workers see it."),
    "cluster.tokenizer": ("", "The model's tokenizer.json where the load client runs, for load.accuracy; null: that in cluster.model_path."),
    "cluster.dynamo_venv": ("", "Virtual environment with Dynamo; null: the python3 on the PATH of the processes."),
    "cluster.python": ("", "Python with tune on the nodes, where it is not this machine's; action=bootstrap makes it."),
    "cluster.exclude": ("", "Nodes that no job gets (sbatch --exclude), as Slurm writes them."),
    "cluster.extra_sbatch": ("", "Further long options of sbatch."),
    "cluster.deadlines.quiet_s": ("s", "Longest time without progress while a deployment starts or warms up."),
    "cluster.deadlines.ready_s": ("s", "Longest time until a deployment is ready."),
    "cluster.deadlines.stop_s": ("s", "Time between asking a process to end and killing it."),
    "cluster.processes": ("cores", "Cores that the simulated rack uses; null: all. No result depends on it."),
    "cluster.calibration": ("", "Parameters of the simulated rack; null where nothing is simulated."),
    "cluster.calibration.prefill_scale": ("ratio", "Prefill step time over the modelled one."),
    "cluster.calibration.decode_scale": ("ratio", "Decode step time over the modelled one."),
    "cluster.calibration.ttft_overhead_s": ("s", "Time before a request reaches its prefill worker."),
    "cluster.calibration.frontend_message_s": ("s", "Time of a frontend for one streamed message."),
    "cluster.calibration.kv_transfer_bytes_per_s": ("bytes/s", "Bandwidth of one GPU's link for KV caches."),
    "cluster.calibration.kv_transfer_latency_s": ("s", "Latency of a KV transfer."),
    "cluster.calibration.kv_stall_token_s": ("s", "For how long each token of a KV cache that is sent holds up the steps of both its workers; null: 0."),
    "cluster.calibration.decode_step_gap_s": ("s", "Between two steps by a table of a decode or aggregated worker, what its log does not time; null: 0."),
    "cluster.calibration.rank_router": ("", "What decides which rank of a worker with attention data parallelism serves a request; null: fewest_tokens, as TensorRT-LLM."),
    "cluster.calibration.draft_acceptance": ("ratio", "Share of decode steps in which the draft token of depth 1, 2, ... is accepted; null: 0.79, 0.45, 0.25 (InferenceX, DeepSeek-V4-Pro)."),
    "cluster.calibration.draft_spread_frac": ("ratio", "Standard deviation over answers of the tokens that a decode step makes, over their mean; null: 0."),
    "cluster.calibration.no_graph_overhead_s": ("s", "Extra time of a decode step without a CUDA graph."),
    "cluster.calibration.no_overlap_overhead_s": ("s", "Extra time of a step without the overlap scheduler."),
    "cluster.calibration.last_decode_worker_scale": ("ratio", "Hypothesis: step time of the last decode worker over that of the others; 1: off."),
    "cluster.calibration.head_node_scale": ("ratio", "Hypothesis: step time of workers on node 0 over that of the others; 1: off."),
    "cluster.calibration.large_batch_weight_reads": ("reads", "Hypothesis: further reads of the weights in decode steps above 128 sequences; 0: off."),
    "cluster.calibration.prefill_steps": ("", "CSV file with the measured step times of a prefill worker, as action=steps writes it; null: the roofline."),
    "cluster.calibration.decode_steps": ("", "CSV file with the measured step times of a decode worker; null: the roofline."),
    "cluster.calibration.step_source": ("", "Where steps without a table come from: aiconfigurator, sums of kernels that it measured (pip install 'tune[kernels]'); null, the roofline."),
    "cluster.calibration.bring_up_s": ("s", "Time to start a deployment, counted in GPU-hours and in no latency."),
}

TABLE: dict[str, Meaning] = COMMAND | STUDY | SWEEP | RACK | LOAD | CLUSTER
"""Every setting outside of the pools and `slo`, by path."""


def meaning_of(path: str) -> Meaning:
    """Return unit and meaning of the setting at `path`, outside of the pools.

    Raises KeyError for a path that is no setting.
    """
    group, _, name = path.partition(".")
    if group == "slo":
        return _limit_meaning(name)
    return TABLE[path]


def pool_meaning(engine: type[Engine], name: str) -> Meaning:
    """Return unit and meaning of a setting of a pool, `name` being its path below the pool."""
    return EVERY_ENGINE.get(name) or engine.MEANINGS[name]


def _limit_meaning(key: str) -> Meaning:
    """Return the meaning of the setting `slo.<key>`, such as `ttft_p99_s`. Raises KeyError for no limit's key."""
    limit = {limit.key: limit for limit in LIMITS}[key]
    latency = f"the {limit.latency.title}{limit.latency.title_suffix}"
    return limit.latency.unit, f"Limit of the {limit.statistic.title} of {latency}; null: no limit."
