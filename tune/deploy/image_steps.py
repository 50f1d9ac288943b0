"""Render the script that builds the image of a cluster's jobs: Dynamo and its engine at two commits."""

from __future__ import annotations

import shlex
from pathlib import Path

from tune.errors import ConfigurationError
from tune.spec.cluster import ClusterFacts, ImageBuild

IMAGE_SCRIPT = "build_image.sh"


def image_script(steps: str, build: ImageBuild, squash_file: Path) -> str:
    """Return a script of bash that builds the image of `build` and writes it as the file `squash_file`.

    Parameters
    ----------
    steps
        The steps of the engine (`image_steps` of its adapter); they find what follows in variables.
    build
        Commits, platform and name.
    squash_file
        Absolute path.

    Returns
    -------
    str
        The text of the script.
    """
    given = {
        "DYNAMO_COMMIT": build.dynamo_commit,
        "ENGINE_COMMIT": build.engine_commit,
        "PLATFORM": build.platform,
        "IMAGE": build.tag,
        "SQUASH_FILE": str(squash_file),
    }
    head = [f"{name}={shlex.quote(value)}" for name, value in given.items()]
    return "\n".join(["#!/bin/bash", *head, "", steps])


def squash_file_of(facts: ClusterFacts, build: ImageBuild, folder: Path) -> Path:
    """Return the file that jobs unpack: `cluster.container_image`, or one in `folder` where none is set.

    Parameters
    ----------
    facts
        The cluster.
    build
        What the image is built from; it names the file where the cluster has none.
    folder
        Absolute path.

    Returns
    -------
    Path
        An absolute path.

    Raises
    ------
    ConfigurationError
        Where the cluster's image is in a registry, not in a file.
    """
    image = facts.container_image
    if image is None:
        return folder / f"{build.tag.rpartition('/')[2].replace(':', '_')}.sqsh"
    if not image.startswith("/"):
        raise ConfigurationError(
            f"cluster.container_image: found {image}, expected the absolute path of the squash file to "
            "write, or null. An image in a registry is not built here."
        )
    return Path(image)
