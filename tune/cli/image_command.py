"""Run action=image: write the steps that build and import the image of a cluster's jobs."""

from __future__ import annotations

import shlex
from pathlib import Path

from tune.cli.output import show
from tune.config import ComposedConfig
from tune.core.files import make_folder, write_text
from tune.deploy.image_steps import IMAGE_SCRIPT, image_script, squash_file_of
from tune.engines.registry import engine_of
from tune.errors import ConfigurationError


def image_action(composition: ComposedConfig) -> None:
    """Write the steps as a script into `runs_dir`, and say what they make and how jobs use it.

    Raises ConfigurationError where the cluster's facts do not say what to build, or name no file, and for an
    engine without steps.
    """
    settings = composition.settings
    build = settings.cluster.image
    if build is None:
        raise ConfigurationError(
            "cluster.image: found null, expected the commits and the platform to build. Copy `image:` from "
            "conf/cluster/facts/gb200_rack.yaml into the facts of your cluster."
        )
    steps = engine_of(settings.trial_spec).image_steps
    if steps is None:
        raise ConfigurationError(
            f"action=image: found stack.engine={settings.stack.engine}, whose image is not built here. "
            "Import a released one, and name its squash file as cluster.container_image."
        )
    runs = Path(settings.runs_dir).absolute()
    squash_file = squash_file_of(settings.cluster, build, runs)
    script = runs / IMAGE_SCRIPT
    make_folder(runs, parents=True)
    write_text(script, image_script(steps, build, squash_file))
    show(f"steps     {script}")
    show(f"makes     {build.tag}\n          {squash_file}")
    show(f"run       {shlex.join(['bash', str(script), 'FOLDER'])}")
    show(f"          where docker and enroot are, on a machine of platform {build.platform}")
    show(f"then      jobs use it with cluster.container_image={squash_file}; action=preflight looks for it")
