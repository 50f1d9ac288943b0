"""Check that every setting is described, in `--help` and that the generated pages are up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.composed import composed
from support.other_engine import REFERENCE

from tune.cli.setting_meanings import EVERY_ENGINE, TABLE
from tune.cli.settings_reference import render_markdown, setting_rows
from tune.spec.engine_table import ENGINES, settings_class
from tune.spec.split import ALL_ROLES

SETTINGS = list(dict.fromkeys(map(settings_class, ENGINES)))
"""The class of settings of each engine, shared ones once."""


@pytest.fixture(scope="module")
def paths() -> list[str]:
    values = composed().model_dump(mode="json")
    return [row.path for row in setting_rows(values)]


def test_the_table_describes_exactly_the_settings_that_exist(paths: list[str]) -> None:
    engines = [
        f"{pool}.{name}"
        for pool in ALL_ROLES
        for settings in SETTINGS
        for name in (*settings.MEANINGS, *EVERY_ENGINE)
    ]
    limits = [path for path in paths if path.startswith("slo.")]
    assert sorted([*TABLE, *engines, *limits]) == sorted(paths)
    assert limits


def test_every_description_is_a_sentence() -> None:
    of_engines = [row for settings in SETTINGS for row in settings.MEANINGS.items()]
    for path, (_, meaning) in (*TABLE.items(), *EVERY_ENGINE.items(), *of_engines):
        assert meaning[0].isupper() or meaning.split()[0].rstrip(":") in {"fixed", "completions", "sbatch"}, (
            path
        )
        assert meaning.endswith("."), path


def test_rows_state_type_unit_and_default() -> None:
    values = composed().model_dump(mode="json")
    rows = {row.path: row for row in setting_rows(values)}
    rate = rows["load.target_qps"]
    assert (rate.kind, rate.unit, rate.default) == ("number > 0 or null", "queries/s", "15.75")
    assert rows["confirm.confidence"].kind == "number >= 0.5 and < 1"
    assert rows["load.rate_range_qps"].kind == "[number > 0, number > 0] or null"
    assert rows["sweep.space.NAME.kind"].kind == "int or float or ordered or choice or graph_family"
    assert rows["decode.cuda_graph_config"].kind == "group or null"


@pytest.mark.parametrize(
    ("path", "engine", "default", "has_value"),
    [
        ("load.target_qps", None, "15.75", True),
        ("decode.cuda_graph_config", "trtllm", "group", False),
        ("load.trace", None, "null", True),
        ("load.trace.time_unit", None, "required", False),
        ("prefill.cuda_graph_config.batch_sizes", "trtllm", "null", True),
        ("prefill.max_num_seqs", "dynamo_vllm", "required", False),
        ("prefill.extra", "dynamo_vllm", "{}", True),
        ("sweep.space.NAME.step", None, "1 or null", True),
    ],
)
def test_a_setting_that_the_options_leave_out_has_the_default_of_its_type(
    path: str, engine: str | None, default: str, has_value: bool
) -> None:
    found = [
        row
        for row in setting_rows(composed().model_dump(mode="json"))
        if row.path == path and (engine is None or engine in row.engines)
    ]
    assert [(row.default, row.has_value) for row in found] == [(default, has_value)]


def test_an_engine_that_is_not_in_use_has_no_default_of_another_one() -> None:
    """Show vLLM's 8 GPUs where the command uses vLLM, and none of TensorRT-LLM's workers there."""
    path = "prefill.tensor_parallel_size"
    words = ["stack=dynamo_vllm", "prefill=vllm", "decode=vllm", f"{path}=8"]
    for values, expected in (
        (composed().model_dump(mode="json"), {"trtllm": "4", "dynamo_vllm": "required"}),
        (composed(*words).model_dump(mode="json"), {"trtllm": "required", "dynamo_vllm": "8"}),
    ):
        rows = [row for row in setting_rows(values) if row.path == path]
        assert {engine: row.default for row in rows for engine in row.engines}.items() >= expected.items()


def test_no_row_of_the_page_has_an_empty_default_and_the_page_explains_its_words() -> None:
    page = render_markdown(composed().model_dump(mode="json"))
    rows = [line.replace("\\|", "/").split("|") for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 300
    assert [row[1].strip() for row in rows if not row[4].strip()] == []
    words = {row[4].strip() for row in rows if not row[4].strip().startswith("`")}
    assert words == {"*required*", "*group*"}
    head = page.partition("\n## ")[0]
    assert all(word in head for word in words)


def test_the_settings_of_each_engine_are_described_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    values = composed().model_dump(mode="json")
    shared = [row for row in setting_rows(values) if row.path == "prefill.max_batch_size"]
    assert [row.engines for row in shared] == [("trtllm", "dynamo_mocker")]
    monkeypatch.setitem(ENGINES, "stand_in", REFERENCE)
    rows = {row.path: row for row in setting_rows(values) if row.engines == ("stand_in",)}
    assert (rows["decode.ranks"].kind, rows["decode.ranks"].unit) == ("integer", "GPUs")
    page = render_markdown(values)
    assert page.count("With `stack.engine` stand_in:") == 3
    assert page.count("With `stack.engine` trtllm or dynamo_mocker:") == 3


@pytest.mark.slow
def test_the_generated_pages_are_up_to_date(root: Path, tmp_path: Path) -> None:
    script = root / "scripts" / "write_reference.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    for page in ("settings.md", "metrics.md", "failures.md", "ranking.md", "run-checks.md"):
        shown = root / "docs" / "reference" / page
        assert (tmp_path / page).read_text() == shown.read_text(), f"make reference writes {shown} anew"


@pytest.mark.slow
def test_help_states_the_facts_of_the_page_for_this_command_line(root: Path) -> None:
    values = composed().model_dump(mode="json")
    engine = values["stack"]["engine"]
    paths = [row.path for row in setting_rows(values) if not row.engines or engine in row.engines]
    command = [sys.executable, "-m", "tune", "--help", "load.target_qps=14"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "load.target_qps=14\n      [number > 0 or null, queries/s] Mean rate of the arrivals;" in text
    assert [path for path in paths if path not in text] == []
    assert "${" not in text, "every interpolation is resolved"


@pytest.mark.slow
def test_help_imports_nothing_that_is_slow(root: Path) -> None:
    code = (
        "import sys; sys.argv = ['tune', '--help']\n"
        "from tune.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "slow = {'numba', 'optuna', 'pandas', 'plotly', 'scipy', 'submitit'}\n"
        "print(sorted(slow & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
