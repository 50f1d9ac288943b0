"""Hold what is written for another program of a trial, and what both writers need to know of the trial."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import yaml

from tune.deploy.plan import LaunchPlan
from tune.engines.registry import file_reader
from tune.errors import ConfigurationError
from tune.manifest.process import PLACEHOLDER, Process
from tune.recipes.kept_settings import KeptSettings
from tune.recipes.recipe import LeftOut
from tune.spec.cluster import ClusterFacts
from tune.spec.engine_table import ENGINES
from tune.spec.environment import given_values
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

_NOTE = "# Placeholders of the example cluster, which no program can use; put in your own:"
_OF_THE_ADDRESS = ("--http-host", "--http-port")
_OF_DYNAMO = ("DYN_", "ETCD_", "NATS_", "HEAD_NODE")
_OF_THE_LAUNCH = frozenset(
    {
        *("MODEL_PATH", "SERVED_MODEL_NAME", "DISAGGREGATION_MODE", "DISAGGREGATION_STRATEGY"),
        "CUDA_VISIBLE_DEVICES",
    }
)
"""Variables by which workers find their model and their GPUs: every launcher sets its own."""


def is_of_the_launch(engine: str, name: str, value: str) -> bool:
    """Return whether a variable says where something is: addresses, paths, ports, GPUs of one worker.

    Parameters
    ----------
    engine
        The engine of the workers, an EngineName.
    name, value
        The variable.

    Returns
    -------
    bool
        Whether every launcher sets its own value.
    """
    of_the_launch = _OF_THE_LAUNCH | file_reader(engine).launch_variables
    return name.startswith(_OF_DYNAMO) or name in of_the_launch or PLACEHOLDER.search(value) is not None


@dataclass(frozen=True)
class ExportedRecipe:
    """Hold the files of a trial for another program, by their paths.

    `main` is the one that settings are kept in. `left_out` says what the other program has no place for in
    facts of the cluster, which are no part of a trial. `placeholders` holds the settings whose values in the
    files stand for those of a reader's own cluster.
    """

    files: Mapping[str, str | bytes]
    main: str
    left_out: tuple[LeftOut, ...] = ()
    placeholders: tuple[str, ...] = ()

    def with_placeholders(self, example: Iterable[tuple[str, str]]) -> ExportedRecipe:
        """Return the files with a comment at the top of the main one on each value of `example` in them."""
        text = str(self.files[self.main])
        whole = "\n".join(content for content in self.files.values() if isinstance(content, str))
        found = tuple(f"{name}: {value}" for name, value in example if value in whole)
        if not found:
            return self
        first = 1 if text.startswith("#!") else 0
        lines = text.splitlines(keepends=True)
        lines[first:first] = [f"{line}\n" for line in (_NOTE, *(f"#   {line}" for line in found))]
        return replace(self, files={**self.files, self.main: "".join(lines)}, placeholders=found)

    def with_kept(self, kept: KeptSettings) -> ExportedRecipe:
        """Return the files with comments that keep settings at the end of the main one."""
        return replace(self, files={**self.files, self.main: f"{self.files[self.main]!s}\n{kept.text()}"})


@dataclass(frozen=True)
class PlannedTrial:
    """Hold a trial with its plan on a cluster, for a writer."""

    name: str
    spec: TrialSpec
    facts: ClusterFacts
    plan: LaunchPlan

    @property
    def recipe_name(self) -> str:
        """Return what recipes call the engine. Raises ConfigurationError for one without a real engine."""
        name = ENGINES[self.spec.stack.engine].recipe_name
        if name is None:
            raise ConfigurationError(
                f"stack.engine: found {self.spec.stack.engine}, which other programs do not launch; expected "
                "a trial of a real engine. export.to=sbatch takes it."
            )
        return name

    @property
    def image(self) -> str:
        """Return the container's image. Raises ConfigurationError where the cluster names none."""
        if self.facts.container_image is None:
            raise ConfigurationError(
                "cluster.container_image: found null; expected the image that the other program runs. Give "
                "cluster.container_image=IMAGE with the export."
            )
        return self.facts.container_image

    def processes(self, role: str) -> tuple[Process, ...]:
        """Return the processes of one role."""
        return tuple(process for process in self.plan.processes if process.role == role)

    def engine_keys(self, role: Role) -> dict[str, Any]:
        """Return the keys of the engine of a pool."""
        return file_reader(self.spec.stack.engine).keys_of_worker(self.plan.files, self.processes(role)[0])

    def environment(self, role: str) -> dict[str, str]:
        """Return the variables of a role's processes, without those that every launcher sets itself."""
        given = given_values(self.spec.environments.get(f"{role}.env", self.spec.environments["stack.env"]))
        planned = {
            name: value
            for name, value in self.processes(role)[0].env.items()
            if not is_of_the_launch(self.spec.stack.engine, name, value)
        }
        return planned | given

    def router_words(self) -> tuple[str, ...]:
        """Return the options of the first frontend, without address and port, which a launcher chooses."""
        argv = self.processes("frontend")[0].argv
        words = argv[argv.index("dynamo.frontend") + 1 :]
        ends = [index for index, word in enumerate(words) if word.startswith("--")] + [len(words)]
        options = [words[start:end] for start, end in pairwise(ends)]
        return tuple(word for option in options if option[0] not in _OF_THE_ADDRESS for word in option)

    def passed_on(self) -> Iterator[LeftOut]:
        """Yield the variables that are passed on from the shell that starts a deployment."""
        for path, variables in self.spec.environments.items():
            for name, value in variables.items():
                if value is None:
                    reason = "its value is that of your shell; give it to the other program yourself"
                    yield LeftOut(f"{path}.{name}", "", 0, reason)

    def prefix(self, role: str) -> tuple[str, ...]:
        """Return what stands before the command of a role."""
        prefix: tuple[str, ...] = getattr(self.facts.command_prefix, role)
        return prefix


def yaml_text(content: Any) -> str:
    """Return YAML in block style, with texts of several lines as they are."""
    return yaml.dump(content, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=110)


class _Readable(yaml.SafeDumper):
    """Write texts of several lines in literal style, and lists below their keys further in."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Shift lists in as mappings are."""
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Readable.add_representer(str, _represent_text)
