"""Test how tables of step times are read: every mistake names its file, line and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from support.composed import composed

from tune.spec.cluster import Calibration
from tune.spec.step_table import StepRow, render_step_table

HEADER = "phase,batch,new_tokens,context_tokens,milliseconds,steps"
GOOD = ("prefill,1,512,0,24.5,3", "prefill,2,1024,0,49.0,1", "decode,1,1,600,8.5,2", "decode,8,8,4800,9.5,7")


def with_tables(path: Path) -> Calibration:
    calibration = composed().cluster.calibration
    assert calibration is not None
    tables = {"prefill_steps": str(path), "decode_steps": str(path)}
    return Calibration.model_validate(calibration.model_dump() | tables)


def written(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "steps.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_each_pool_takes_the_rows_of_its_phase(tmp_path: Path) -> None:
    calibration = with_tables(written(tmp_path, *GOOD))
    assert calibration.prefill_steps == (StepRow(1, 512, 0, 24.5, 3), StepRow(2, 1024, 0, 49.0, 1))
    assert calibration.decode_steps == (StepRow(1, 1, 600, 8.5, 2), StepRow(8, 8, 4800, 9.5, 7))


def test_steps_may_be_absent_and_contexts_unknown(tmp_path: Path) -> None:
    rows = ("prefill,1,5,,1", "prefill,1,6,,1", "decode,1,1,,1", "decode,2,2,,1")
    path = written(tmp_path, *rows, header=HEADER.removesuffix(",steps"))
    assert with_tables(path).decode_steps == (StepRow(1, 1, None, 1.0, 1), StepRow(2, 2, None, 1.0, 1))


def test_a_record_holds_the_rows_and_reads_them_again(tmp_path: Path) -> None:
    calibration = with_tables(written(tmp_path, *GOOD))
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
    assert Calibration.model_validate(calibration.model_dump(mode="json")) == calibration


def test_a_calibration_without_tables_is_recorded_as_before() -> None:
    calibration = composed().cluster.calibration
    assert calibration is not None
    assert not {"prefill_steps", "decode_steps"} & set(calibration.model_dump())


def test_a_written_table_is_read_as_it_was(tmp_path: Path) -> None:
    calibration = with_tables(written(tmp_path, *GOOD))
    assert calibration.prefill_steps
    assert calibration.decode_steps
    text = render_step_table({"prefill": calibration.prefill_steps, "decode": calibration.decode_steps})
    (tmp_path / "again.csv").write_text(text)
    assert with_tables(tmp_path / "again.csv") == calibration


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("mixed,1,1,1,1,1", "line 6: phase: found 'mixed'; expected prefill or decode"),
        ("decode,0,0,1,1,1", "line 6: batch: found '0'; expected a whole number of at least 1"),
        ("decode,2.5,3,1,1,1", "line 6: batch: found '2.5'; expected a whole number"),
        ("decode,4,9,1,1,1", "line 6: new_tokens: found 9 with a batch of 4; expected 4, or a multiple"),
        ("decode,4,8,1,1,1", "has decode steps with 0, 1 draft tokens a sequence; expected as many in all"),
        ("prefill,4,3,1,1,1", "line 6: new_tokens: found 3 with a batch of 4; expected 4 or more"),
        ("decode,4,4,-1,1,1", "line 6: context_tokens: found '-1'; expected a whole number of at least 0"),
        ("decode,4,4,1,0,1", "line 6: milliseconds: found '0'; expected a time above 0"),
        ("decode,4,4,1,nan,1", "line 6: milliseconds: found 'nan'; expected a time above 0"),
        ("decode,4,4,1,fast,1", "line 6: milliseconds: found 'fast'; expected a time above 0"),
        ("decode,4,4,1,1,0", "line 6: steps: found '0'; expected a whole number of at least 1"),
        ("decode,4,4,1,1", "line 6: found more or fewer cells than columns"),
        ("decode,4,4,1,1,1,1", "line 6: found more or fewer cells than columns"),
        ("decode,4,4,,1,1", "has context_tokens in some rows of decode only"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, found: str) -> None:
    path = written(tmp_path, *GOOD, row)
    with pytest.raises(ValidationError) as raised:
        with_tables(path)
    messages = {detail["loc"]: detail["msg"] for detail in raised.value.errors()}
    assert str(path) in messages["decode_steps",]
    assert found in messages["decode_steps",]


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"cannot be read .*; expected a CSV file with the columns"):
        with_tables(tmp_path / "none.csv")
    with pytest.raises(ValidationError, match=r"line 1: found the columns batch, ms; expected phase, batch"):
        with_tables(written(tmp_path, "1,2", header="batch,ms"))


def test_one_size_of_step_is_too_few(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD[:3])
    with pytest.raises(ValidationError, match="1 rows of decode; expected rows with two different values of"):
        with_tables(path)
