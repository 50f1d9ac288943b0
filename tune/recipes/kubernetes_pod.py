"""Read the pods of a deployment of Dynamo: their number, GPUs, variables, and the ConfigMaps they mount."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tune.recipes.document import Section
from tune.recipes.recipe_environment import merged
from tune.spec.environment import looks_secret

ESCAPED = "$$("
"""How a text of a pod writes `$(`, with which a reference to a variable begins. Source: Kubernetes, API of
containers."""

_GPU_RESOURCES = ("gpu", "nvidia.com/gpu")


@dataclass(frozen=True)
class Pod:
    """Hold the pods of one part: `replicas` times `nodes` pods with `gpus` each.

    `config_maps` has the name of a ConfigMap by the folder in which the container sees it.
    """

    name: str
    role: str | None
    replicas: int
    nodes: int
    gpus: int
    env: Mapping[str, str | None]
    container: Section
    config_maps: Mapping[str, str]


def read_pod(part: Section, spec: Section) -> Pod:
    """Return the pods of a service (v1alpha1) or a component (v1beta1).

    Parameters
    ----------
    part
        The service or component.
    spec
        The deployment, whose variables every container gets.

    Returns
    -------
    Pod
        The pods.
    """
    pod = (
        part.section("extraPodSpec")
        if "extraPodSpec" in part
        else part.section("podTemplate").section("spec")
    )
    container = pod.section("mainContainer") if "mainContainer" in pod else _main_container(pod)
    replicas = part.count("replicas", least=0)
    part.accept("componentType", "worker", "main", "frontend")
    return Pod(
        name=part.text("name") or str(part.place[-1]),
        role=part.text("subComponentType") or part.text("type") or part.text("componentType"),
        replicas=1 if replicas is None else replicas,
        nodes=part.section("multinode").count("nodeCount") or 1,
        gpus=_gpus(part) or _gpus(container),
        env=merged(*(_variables(*place) for place in _environments(spec, part, container))),
        container=container,
        config_maps=_config_maps(pod, container),
    )


def _environments(spec: Section, part: Section, container: Section) -> Iterator[tuple[Section, str]]:
    """Yield the sections with lists of variables, the nearest to the process last."""
    for section in (spec, part):
        yield section, "envs"
    yield spec, "env"
    yield container, "env"


def _main_container(pod: Section) -> Section:
    """Return the container called main, or the first; an empty section where there is none."""
    containers = list(pod.sections("containers"))
    named = [container for container in containers if container.content.get("name") == "main"]
    return next(iter([*named, *containers]), pod.section("mainContainer"))


def _gpus(section: Section) -> int:
    """Return the GPUs of a pod by its limits, 0 where none are stated."""
    limits = section.section("resources").section("limits")
    for name in _GPU_RESOURCES:
        value = limits.anything(name)
        if value is not None:
            if not str(value).isdigit():
                raise limits.wrong(name, "a whole number")
            return int(value)
    return 0


def _variables(section: Section, key: str) -> dict[str, str | None]:
    """Return the variables of a list of names with values; those from another source are left out."""
    variables: dict[str, str | None] = {}
    for entry in section.sections(key):
        name = entry.required_text("name")
        if "value" not in entry.content:
            continue
        value = entry.anything("value")
        if not isinstance(value, str):
            raise entry.wrong("value", "a text, in quotes")
        variables[name] = None if looks_secret(name) else value.replace(ESCAPED, "$(")
        if looks_secret(name):
            entry.leave(
                "value", "by its name a secret, which no file of tune holds: set it in the shell of tune"
            )
    return variables


def _config_maps(pod: Section, container: Section) -> dict[str, str]:
    volumes = {}
    for volume in pod.sections("volumes"):
        config_map = volume.section("configMap").text("name")
        if config_map is not None:
            volumes[volume.required_text("name")] = config_map
    mounted = {}
    for mount in container.sections("volumeMounts"):
        name = mount.content.get("name")
        if name in volumes:
            mount.anything("name")
            mount.anything("readOnly")
            mounted[mount.required_text("mountPath")] = volumes[name]
    return mounted
