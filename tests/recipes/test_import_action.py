"""Test that action=import leaves no half-written file, and that the command it prints runs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from support.command_line import names_in, run_import
from support.recipe_files import DATA, Changed

from tune.cli.imported_recipe import write_options
from tune.cli.runnable import check_configuration, check_whole_sweep
from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.spec.findings import only_errors

SLURM = ["cluster.partition=batch", "cluster.account=me"]
"""Facts of a cluster, which the user has to state."""


@pytest.mark.slow  # composes configurations and checks whole sweeps
@pytest.mark.parametrize(
    ("name", "replaced", "expected"),
    [
        ("schema1.yaml", (), {"+sweep=example_2p1d"}),
        ("schema1.yaml", (("[64, 128]", "[64]"),), {"+sweep=pd_split", "slo.ttft_p99_s=null"}),
        ("schema1.yaml", (("  concurrencies: [64, 128]\n", ""),), {"+sweep=pd_split", "load.mode=capacity"}),
        (
            "schema1.yaml",
            (("fp4", "fp8"), ("[64, 128]", "[64]")),
            {"+sweep=pd_split", "cluster=slurm", "slo.ttft_p99_s=null"},
        ),
        ("wide_decode.yaml", (), {"+sweep=pd_split", "cluster=slurm", "load.mode=fixed"}),
        ("aggregated.yaml", (), {"cluster=slurm", "slo.ttft_p99_s=null"}),
        ("aggregated_roles.yaml", (), {"cluster=slurm", "+sweep=example_4a"}),
        ("aggregated_graph.yaml", (), {"load.mode=capacity"}),
        ("vllm_graph.yaml", (), {"+sweep=pd_split", "cluster=slurm", "load.mode=fixed"}),
        ("vllm_graph.yaml", (("-FP8", "-FP4"),), {"+sweep=pd_split", "load.mode=capacity"}),
    ],
)
def test_the_study_that_is_printed_passes_its_checks(
    name: str,
    replaced: tuple[tuple[str, str], ...],
    expected: set[str],
    changed: Changed,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = changed(name, *replaced)
    run_import(file, file.parent / "mine")
    printed = capsys.readouterr().out.splitlines()
    (line,) = (line for line in printed if line.startswith("study "))
    words = shlex.split(line)
    start = words.index("--config-dir")
    assert expected <= set(words)
    assert ("cluster=slurm" in words) == ("cluster=slurm" in expected)
    settings = compose_overrides([*words[start + 2 :], *SLURM], [words[start + 1]]).settings
    assert not only_errors(check_configuration(settings))
    assert not only_errors(check_whole_sweep(settings))


@pytest.mark.slow  # composes configurations
def test_a_folder_in_place_of_a_file_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    place = tmp_path / "mine" / "recipe" / "example_2p1d.yaml"
    place.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"example_2p1d\.yaml: is a folder; expected a file"):
        run_import(DATA / "schema1.yaml", tmp_path / "mine")
    assert names_in(tmp_path / "mine") == {"recipe"}


def test_a_file_that_cannot_be_written_takes_all_others_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "recipe" / "second.yaml").mkdir(parents=True)
    (folder / "decode").mkdir()
    (folder / "decode" / "first.yaml").write_text("kept: 1\n")
    texts = {
        "prefill/first.yaml": "a: 1\n",
        "decode/first.yaml": "kept: 1\n",
        "recipe/first.yaml": "b: 1\n",
        "prefill/second.yaml": "a: 1\n",
        "recipe/second.yaml": "b: 1\n",
    }
    with pytest.raises(ConfigurationError, match="is a folder"):
        write_options(folder, texts)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert left == {"decode", "decode/first.yaml", "recipe", "recipe/second.yaml"}


def test_a_folder_of_configuration_that_is_a_file_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"mine/recipe: cannot be written .* or to=\.\.\."):
        write_options(tmp_path / "mine", {"recipe/a.yaml": "a: 1\n"})
    assert names_in(tmp_path) == {"mine"}
