"""Read the pods of a deployment of Dynamo: their number, GPUs, variables, and the ConfigMaps they mount."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tune.recipes.document import MOST, Section
from tune.recipes.recipe_environment import SECRET_REASON, merged
from tune.spec.environment import is_secret

ESCAPED = "$$("
"""How a text of a pod writes `$(`, with which a reference to a variable begins. Source: Kubernetes, API of
containers."""

_GPU_RESOURCES = ("gpu", "nvidia.com/gpu")


@dataclass(frozen=True)
class Mount:
    """Hold where a container sees a ConfigMap: its keys as files in the folder `path`, or one file there.

    `keys` has the keys by the names of their files, empty where both are equal and all are there. `file` is
    the name of the one file (subPath), None for the folder.
    """

    config_map: str
    path: PurePosixPath
    keys: Mapping[str, str]
    file: str | None

    def key_of(self, path: PurePosixPath) -> str | None:
        """Return the key whose text the container sees at `path`, None where it is another's."""
        if self.path != (path if self.file else path.parent):
            return None
        name = self.file or path.name
        return self.keys.get(name) if self.keys else name


@dataclass(frozen=True)
class Pod:
    """Hold the pods of one part: `replicas` times `nodes` pods with `gpus` each."""

    name: str
    role: str | None
    replicas: int
    nodes: int
    gpus: int
    env: Mapping[str, str | None]
    container: Section
    mounts: tuple[Mount, ...]


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
    replicas = part.number_of("replicas", least=0)
    part.accept("componentType", "worker", "main", "frontend")
    return Pod(
        name=part.text("name") or str(part.place[-1]),
        role=part.text("subComponentType") or part.text("type") or part.text("componentType"),
        replicas=1 if replicas is None else replicas,
        nodes=part.section("multinode").number_of("nodeCount") or 1,
        gpus=_gpus(part) or _gpus(container),
        env=merged(*(_variables(*place) for place in _environments(spec, part, container))),
        container=container,
        mounts=tuple(_mounts(pod, container)),
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
            if not str(value).isdigit() or len(str(value)) > len(str(MOST)) or int(value) > MOST:
                raise limits.wrong(name, f"a whole number from 0 to {MOST}")
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
        secret = is_secret(name, value)
        variables[name] = None if secret else value.replace(ESCAPED, "$(")
        if secret:
            entry.leave("value", SECRET_REASON)
    return variables


def _mounts(pod: Section, container: Section) -> Iterator[Mount]:
    """Yield the ConfigMaps that a container mounts."""
    volumes = {}
    for volume in pod.sections("volumes"):
        source = volume.section("configMap")
        config_map = source.text("name")
        if config_map is not None:
            items = {
                item.required_text("path"): item.required_text("key") for item in source.sections("items")
            }
            volumes[volume.required_text("name")] = (config_map, items)
    for mount in container.sections("volumeMounts"):
        name = mount.content.get("name")
        if name is not None and not isinstance(name, str):
            raise mount.wrong("name", "a text")
        if name in volumes:
            mount.anything("name")
            mount.anything("readOnly")
            path = PurePosixPath(mount.required_text("mountPath"))
            yield Mount(volumes[name][0], path, volumes[name][1], mount.text("subPath"))
