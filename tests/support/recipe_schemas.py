"""Validate what is exported as the programs do that read it: their fields and types, unknown keys refused.

The facts, in words of our own, are those of NVIDIA/srt-slurm, docs/schema/recipe.schema.json (0794007, read
in full: every name, type and value of the blocks that tune writes), and of ai-dynamo/dynamo, the reference of
DynamoGraphDeployment (nvidia.com/v1beta1, 1.6); both are under Apache-2.0. Aggregated workers are the
role `agg` of a recipe, and a component of the type `worker`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Known(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SrtModel(Known):
    path: str
    container: str
    precision: str


class SrtResources(Known):
    gpu_type: str | None = None
    gpus_per_node: int = 4
    spread_workers: bool = False
    het_jobs: bool | None = None


class SrtSlurm(Known):
    account: str | None = None
    partition: str | None = None
    time_limit: str | None = None


class SrtTrtllm(Known):
    type: Literal["trtllm"]
    served_model_name: str | None = None
    publish_metrics: bool = True
    publish_events_and_metrics: bool | None = None
    sequential_node_start: int = 0
    numa_memory_bind: bool | Literal["local"] | None = None
    numa_cpu_bind: bool = False


class SrtVllm(Known):
    type: Literal["vllm"]
    connector: str | None = "nixl"
    dp_launch_mode: Literal["per_gpu", "per_node"] = "per_node"


class SrtRole(Known):
    """Describe a role: prefill and decode, or agg alone. Decode workers alone may colocate."""

    nodes: int | Literal["colocate"] | None = None
    workers: int | None = None
    gpus: int | None = None
    srun_options: dict[str, str] = {}
    env: dict[str, str] = {}
    args: dict[str, Any] = {}
    extra_args: list[str] = []


class SrtPlacement(Known):
    node: Literal["head", "first_decode", "dedicated", "infra", "workers"]


class SrtFrontend(Known):
    type: Literal["dynamo"]
    enable_multiple_frontends: bool = True
    num_additional_frontends: int = 9
    args: dict[str, Any] | None = None
    env: dict[str, str] | None = None
    numa_bind: bool = False
    placement: SrtPlacement


class SrtService(Known):
    name: str
    type: Literal["generic", "etcd", "nats"]
    placement: SrtPlacement | None = None


class SrtDynamo(Known):
    install: bool = True
    request_plane: Literal["nats", "tcp", "http"] = "tcp"
    event_plane: Literal["nats", "zmq"] | None = None


class SrtBenchmark(Known):
    type: Literal["manual", "sa-bench"]
    isl: int | None = None
    osl: int | None = None
    concurrencies: list[int] | str | None = None
    req_rate: str | int | None = "inf"
    random_range_ratio: float | None = None
    num_prompts_mult: int | None = None
    use_chat_template: bool = True


class SrtHealthCheck(Known):
    max_attempts: int = 180
    interval_seconds: int = 10


class SrtRecipe(Known):
    """Describe a recipe of schema 2, as far as tune writes one."""

    schema_: Annotated[Literal[2], Field(alias="schema")]
    name: str
    model: SrtModel
    resources: SrtResources
    slurm: SrtSlurm
    engine: Annotated[SrtTrtllm | SrtVllm, Field(discriminator="type")]
    roles: dict[Literal["prefill", "decode", "agg"], SrtRole]
    frontend: SrtFrontend
    services: list[SrtService] = []
    dynamo: SrtDynamo
    benchmark: SrtBenchmark
    health_check: SrtHealthCheck
    extra_mount: list[str] | None = None
    srun_options: dict[str, str] = {}
    sbatch_directives: dict[str, str] = {}

    @model_validator(mode="after")
    def roles_are_one_deployment(self) -> Self:
        """Refuse what srt-slurm's loader does: mixed roles, others that colocate, too few nodes.

        Source: docs/topology.md (1a36781).
        """
        assert set(self.roles) in ({"prefill", "decode"}, {"agg"}), "disaggregated or aggregated, never both"
        for name, role in self.roles.items():
            assert role.nodes != "colocate" or (name == "decode" and role.gpus), "decode alone colocates"
            if isinstance(role.nodes, int) and role.gpus and role.workers:
                fits = role.nodes * self.resources.gpus_per_node >= role.gpus * role.workers
                assert fits or "colocate" in [other.nodes for other in self.roles.values()], name
        if "agg" in self.roles:
            assert self.frontend.placement.node != "first_decode", "there is no decode worker"
        return self


DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class EnvVar(Known):
    name: Annotated[str, Field(pattern=r"^[^=]+$")]
    value: str


class VolumeMount(Known):
    name: DnsLabel
    mountPath: Annotated[str, Field(pattern=r"^/[^:]*$")]


class Container(Known):
    name: Literal["main"]
    image: str
    workingDir: str | None = None
    command: list[str]
    args: list[str]
    env: list[EnvVar] = []
    resources: dict[Literal["limits"], dict[Literal["nvidia.com/gpu"], str]] = {}
    volumeMounts: list[VolumeMount] = []


class ConfigMapSource(Known):
    name: DnsLabel


class Volume(Known):
    name: DnsLabel
    configMap: ConfigMapSource


class PodSpec(Known):
    containers: list[Container]
    volumes: list[Volume] = []


class PodTemplate(Known):
    spec: PodSpec


class Multinode(Known):
    nodeCount: Annotated[int, Field(ge=2)]


class GraphComponent(Known):
    name: Annotated[str, Field(min_length=1, max_length=63)]
    type: Literal["frontend", "worker", "prefill", "decode", "planner", "epp"]
    replicas: Annotated[int, Field(ge=0)]
    podTemplate: PodTemplate
    multinode: Multinode | None = None


class GraphSpec(Known):
    backendFramework: Literal["sglang", "vllm", "trtllm"]
    components: list[GraphComponent]


class Metadata(Known):
    name: DnsLabel


class DynamoGraph(Known):
    """Describe a DynamoGraphDeployment, as far as tune writes one."""

    apiVersion: Literal["nvidia.com/v1beta1"]
    kind: Literal["DynamoGraphDeployment"]
    metadata: Metadata
    spec: GraphSpec


class ConfigMap(Known):
    apiVersion: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Metadata
    data: dict[Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")], str]
