"""Read what a recipe of srt-slurm says of Slurm, the container and the wait for workers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tune.deploy.extra_sbatch import REFUSED
from tune.deploy.srun_options import OPTIONS_OF_TUNE, REFUSED_OPTIONS
from tune.recipes.document import Section, shown
from tune.recipes.recipe_environment import SECRET_REASON
from tune.spec.environment import without_secrets

_ALIAS = "an alias that srt-slurm's own cluster file resolves"
SERVER_ONLY: Mapping[str, str] = {
    "model.container": f"{_ALIAS}; set cluster.container_image",
    "model.path": f"{_ALIAS}; set cluster.model_path",
    "dynamo": "tune runs the Dynamo of the image, and installs none",
    "frontend.nginx_container": "the load client spreads requests over the frontends; there is no proxy",
    "frontend.nginx_raise_ulimit": "the load client spreads requests over the frontends; there is no proxy",
    "frontend.args": "an option of Dynamo's frontend for which tune has no setting",
    "frontend.type": "tune serves with Dynamo's frontend",
    "srun_options": "tune gives its steps this option itself",
    "resources.spread_workers": "tune puts workers that are smaller than a node side by side",
    "benchmark.client_placement": "the load client runs on node 0",
    "benchmark.placement": "the load client runs on node 0",
    "benchmark.use_chat_template": "prompts go out as token ids; load.api=chat sends text",
    "sbatch_directives": "a fact of the cluster with a setting of its own in your file of facts",
    "slurm": "a fact of the cluster; yours stands in your own file of facts",
    "enable_config_dump": "tune records every file of a plan",
    "extra_mount": "a path below srt-slurm's folder, or with a placeholder of srt-slurm",
    "container_mounts": "a path with a placeholder of srt-slurm",
}
"""Why parts on cluster and server are not taken over."""

OWN_OPTIONS = (
    "account", "exclusive", "gpus-per-node", "job-name", "nodes", "no-requeue", "partition", "qos",
    "reservation", "signal", "time",
)  # fmt: skip
"""Options of sbatch that have a setting of tune, or follow from the plan."""


def read_cluster(root: Section) -> dict[str, Any]:
    """Return the settings of the group `cluster` that a recipe states, by their names."""
    model, slurm = root.section("model", required=True), root.section("slurm")
    health = root.section("health_check")
    root.section("profiling").accept("type", "none")
    path, image = model.required_text("path"), model.text("container")
    if "/" not in path:
        model.leave("path", SERVER_ONLY["model.path"])
    stated = {
        "model_path": path.removeprefix("hf:") if "/" in path else None,
        "container_image": _image(root, model, image),
        "container_mounts": _mounts(root) or None,
        "time_limit": slurm.text("time_limit"),
        "extra_sbatch": _directives(root) or None,
        "deadlines": _deadlines(health),
        "srun_options": _srun_options(root) or None,
    }
    return {name: value for name, value in stated.items() if value is not None}


def _image(root: Section, model: Section, image: str | None) -> str | None:
    """Return the image that is named by file or registry, also where only what was tested names it."""
    if image is None or "/" in image or image.endswith(".sqsh"):
        return image
    tested = root.section("identity").section("container").text("image") if "identity" in root else None
    if tested is None:
        model.leave("container", SERVER_ONLY["model.container"])
    return tested


def _mounts(root: Section) -> list[str]:
    """Return the mounts of the container, in the form of pyxis, whose paths are valid without srt-slurm."""
    mounts = []
    for place, mount in root.items("extra_mount"):
        if not isinstance(mount, str) or ":" not in mount:
            raise root.document.error(place, shown(mount), "SOURCE:TARGET")
        if _stands_alone(mount):
            root.document.used.add(place)
            mounts.append(mount)
    for source, target in root.section("container_mounts").content.items():
        if _stands_alone(source) and isinstance(target, str):
            root.section("container_mounts").anything(source)
            mounts.append(f"{source}:{target}")
    return mounts


def _stands_alone(mount: str) -> bool:
    """Return whether a mount begins with a path that needs no other file to be understood."""
    return mount.startswith(("/", "tmpfs:")) and "{" not in mount


def _srun_options(root: Section) -> list[str]:
    """Return the options of every step, apart from those that tune gives a step itself."""
    return _taken_over(root.section("srun_options"), OPTIONS_OF_TUNE, REFUSED_OPTIONS)


def _directives(root: Section) -> list[str]:
    """Return the options of sbatch, `--NAME=VALUE` or `--NAME`, apart from those that tune always writes."""
    part = root.section("sbatch_directives")
    part.accept("exclusive", "", True, None)
    return _taken_over(part, OWN_OPTIONS, REFUSED)


def _taken_over(part: Section, own: Collection[str], refused: Mapping[str, str]) -> list[str]:
    """Return the options of `part`, `--NAME=VALUE` or `--NAME`, but for tune's own, secrets and `refused`."""
    options = []
    for name in part.content:
        value = part.content[name]
        option = f"--{name}" if value in ("", None) else f"--{name}={value}"
        if name in refused:
            part.leave(name, refused[name])
        elif name not in own and without_secrets(option) != option:
            part.leave(name, SECRET_REASON)
        elif name not in own:
            part.anything(name)
            options.append(option)
    return options


def _deadlines(health: Section) -> dict[str, float] | None:
    """Return how long to wait for the workers."""
    attempts, interval_s = health.count("max_attempts"), health.count("interval_seconds")
    if attempts is None or interval_s is None:
        return None
    return {"ready_s": float(attempts * interval_s)}
