"""Read a folder that action=export wrote for Slurm: what tune/deploy/standalone_job.py renders.

The engines are read from their files, or from the command lines in job.sbatch, so what was changed there
counts. What a job does not say is in its comments.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune.deploy.standalone_job import CLIENT, JOB, STEP
from tune.engines.registry import file_reader
from tune.errors import ConfigurationError
from tune.manifest.process import PLACEHOLDER, PLAN_DIR, RANK_SCRIPT
from tune.manifest.srun_step import WITHOUT_SLURM
from tune.recipes.document import Document
from tune.recipes.dynamo_command import DynamoCommand, command_of_words
from tune.recipes.engine_keys import require_shapes
from tune.recipes.exported_recipe import is_of_the_launch
from tune.recipes.kept_settings import apply_kept, read_kept
from tune.recipes.recipe import Head, LeftOut, Lines, Pool, Rack, Recipe, Routing, ServedModel
from tune.recipes.yaml_documents import read_documents
from tune.spec.engine_table import engine_in_recipes, recipe_names
from tune.spec.environment import without_secrets
from tune.spec.split import ALL_ROLES, HEAD_NODE, Role

_NODES = re.compile(r"^#SBATCH --nodes=(\d+)$", re.MULTILINE)
_NODE_LIST = re.compile(r"--nodelist=\$\(nodelist ([\d,]+)\)")
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_REQUEST_PLANE = "DYN_REQUEST_PLANE"


@dataclass(frozen=True)
class _Step:
    """Hold a line of job.sbatch that starts a server: its number, options of srun, environment, command."""

    line: int
    name: str
    nodes: tuple[int, ...]
    options: tuple[str, ...]
    env: Mapping[str, str | None]
    argv: tuple[str, ...]

    @property
    def command(self) -> DynamoCommand:
        """Return the command, without the script that waits for its rank's turn."""
        argv = self.argv
        if argv[:2] == ("bash", f"{PLAN_DIR}/{RANK_SCRIPT}"):
            argv = argv[4:]
        if argv[: len(WITHOUT_SLURM)] == WITHOUT_SLURM:
            argv = argv[len(WITHOUT_SLURM) :]
        return command_of_words(argv)


def is_bundle(folder: Path) -> bool:
    """Return whether a folder is one that action=export wrote for Slurm."""
    return (folder / JOB).is_file() and (folder / CLIENT).is_file()


def read_bundle(folder: Path) -> Recipe:
    """Return the recipe of a folder with a job.

    Raises ConfigurationError for a job whose lines were changed beyond recognition, and for mock engines.
    """
    file = folder / JOB
    text, kept = file.read_text(encoding="utf-8"), read_kept(file)
    steps = list(_steps(file, text))
    engine = _engine(file, steps)
    frontends = [step for step in steps if step.name.startswith("frontend")]
    workers = _workers(file, steps)
    nodes = _NODES.search(text)
    first = workers["aggregated" if "aggregated" in workers else "decode"][0]
    hardware = kept.groups.get("hardware", {}) if kept else {}
    recipe = Recipe(
        name=kept.trial_id if kept else folder.name,
        origin=f"{folder}, a job of tune's export",
        engine=engine,
        pools={role: _pool(folder, engine, role, found) for role, found in workers.items()},
        rack=Rack(
            int(nodes[1]) if nodes else 1 + max(node for step in steps for node in step.nodes),
            hardware.get("gpus_per_node", max(_tasks_per_node(step) for step in steps)),
            None,
            _head(workers),
        ),
        routing=Routing(
            frontends=max(len(frontends), 1),
            router_mode=frontends[0].command.options.get("--router-mode") if frontends else None,
            request_plane=first.env.get(_REQUEST_PLANE) if kept is None else None,
            env=_own_env(engine, frontends[0]) if frontends else {},
        ),
        lengths=None,
        model=_model(first),
        cluster=_cluster(first, workers, frontends, file_reader(engine).rank_launcher),
        dynamo=None,
        left_out=(
            LeftOut("#SBATCH", "", 1, "facts of the cluster; yours stand in your own file of facts"),
            LeftOut(CLIENT, "", 0, "the load client is tune's own; choose its load with load="),
        ),
        stated=(Lines(str(file)),),
    )
    return apply_kept(recipe, kept)


def _workers(file: Path, steps: list[_Step]) -> dict[Role, list[_Step]]:
    """Return the workers by role: prefill and decode, or aggregated ones alone."""
    found: dict[Role, list[_Step]] = {
        role: [step for step in steps if step.name.startswith(f"{role}_w")] for role in ALL_ROLES
    }
    aggregated = found.pop("aggregated")
    if aggregated and any(found.values()):
        others = ", ".join(role for role, beside in found.items() if beside)
        raise _error(file, aggregated[0].line, f"aggregated workers beside {others}", "one kind of workers")
    if aggregated:
        return {"aggregated": aggregated}
    for role, of_role in found.items():
        if not of_role:
            raise _error(file, 1, f"no {role} workers", f"lines that begin with {STEP} {role}_w0")
    return found


def _steps(file: Path, text: str) -> Iterator[_Step]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(f"{STEP} "):
            continue
        try:
            _, name, passed, *words = shlex.split(line)
            start = words.index("srun") + 1
            end = next(index for index in range(start, len(words)) if not words[index].startswith("--"))
            options, command = words[start:end], words[end:]
            (listed,) = (found for option in options if (found := _NODE_LIST.fullmatch(option)))
        except (ValueError, StopIteration):
            expected = f"{STEP} NAME VARIABLES srun OPTIONS COMMAND, as action=export writes it"
            raise _error(file, number, without_secrets(line[:60]), expected) from None
        env: dict[str, str | None] = dict.fromkeys(passed.strip("-").split(",") if passed != "-" else ())
        while command[:1] == ["env"] or _ASSIGNED.fullmatch(command[0]):
            if found := _ASSIGNED.fullmatch(command[0]):
                env[found[1]] = found[2]
            command = command[1:]
        nodes = tuple(int(index) for index in listed[1].split(","))
        yield _Step(number, name, nodes, tuple(options), env, tuple(command))


def _engine(file: Path, steps: list[_Step]) -> str:
    for step in steps:
        module = step.command.module or ""
        if step.name.startswith(ALL_ROLES):
            engine = engine_in_recipes(module.removeprefix("dynamo."))
            if engine is None:
                programs = " or ".join(f"dynamo.{name}" for name in recipe_names())
                raise _error(file, step.line, f"a worker that runs {module}", programs)
            return engine
    raise _error(file, 1, "no workers", f"lines that begin with {STEP} prefill_w0")


def _pool(folder: Path, engine: str, role: Role, workers: list[_Step]) -> Pool:
    reader, command = file_reader(engine), workers[0].command
    if reader.has_file:
        (document,) = read_documents(folder / f"{role}.yaml")
        keys: dict[str, Any] = dict(document.root().content)
    else:
        keys = reader.keys_of_words(role, command.words)
        document = Document(str(folder / JOB), keys, {(): workers[0].line})
    require_shapes(document, (), keys, engine)
    stated = Lines(document.file, 1 if reader.has_file else workers[0].line)
    return Pool(len(workers), reader.gpus_of_keys(keys), keys, _own_env(engine, workers[0]), (stated,))


def _own_env(engine: str, step: _Step) -> dict[str, str | None]:
    """Return the variables of a step that are not a matter of its launch."""
    return {
        name: value for name, value in step.env.items() if not is_of_the_launch(engine, name, value or "")
    }


def _tasks_per_node(step: _Step) -> int:
    (tasks,) = (option for option in step.options if option.startswith("--ntasks-per-node="))
    return int(tasks.partition("=")[2])


def _head(workers: Mapping[Role, list[_Step]]) -> Head:
    """Return the pool on the first node; aggregated workers there are those that prefill."""
    for role, steps in workers.items():
        if any(HEAD_NODE in step.nodes for step in steps):
            return "decode" if role == "decode" else "prefill"
    return "none"


def _model(worker: _Step) -> ServedModel:
    options = worker.command.options
    path = options.get("--model-path") or options.get("--model", "")
    return ServedModel(path=path, served_name=options.get("--served-model-name"))


def _cluster(
    worker: _Step, workers: Mapping[Role, list[_Step]], frontends: list[_Step], launcher: str | None
) -> dict[str, Any]:
    """Return the settings of the group cluster that the commands state; `launcher` starts ranks."""
    options = dict(option.removeprefix("--").partition("=")[::2] for option in worker.options)
    mounts = [m for m in options.get("container-mounts", "").split(",") if m and not PLACEHOLDER.search(m)]
    firsts: dict[str, _Step] = {role: steps[0] for role, steps in workers.items()}
    firsts |= {"frontend": frontends[0]} if frontends else {}
    prefixes = {
        role: [word for word in step.command.prefix if Path(word).name != launcher]
        for role, step in firsts.items()
    }
    path = _model(worker).path
    stated = {
        "model_path": None if PLACEHOLDER.search(path) else path,
        "container_image": options.get("container-image"),
        "container_workdir": options.get("container-workdir"),
        "container_mounts": mounts or None,
        "command_prefix": {role: prefix for role, prefix in prefixes.items() if prefix},
    }
    return {name: value for name, value in stated.items() if value}


def _error(file: Path, line: int, found: str, expected: str) -> ConfigurationError:
    return ConfigurationError(
        f"{file}, line {line}: found {found}; expected {expected}. Nothing was written."
    )
