import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.errors import ConfigurationError, ResumableError
from tune.records.folders import StudyFolder
from tune.records.proposals import Proposal, append_proposal, read_proposals


def proposal(number: int) -> Proposal:
    params = {"prefill_workers": 14, "target_qps": 15.5, "graphs": "listed", "chunked": True}
    return Proposal(number=number, params=params, source="tpe", trial_id=f"{number:012x}")


def written(tmp_path, count=3):
    study = StudyFolder(tmp_path)
    for number in range(count):
        study.append_proposal(proposal(number))
    return tmp_path / "proposals.jsonl"


def test_proposals_read_back_in_order(tmp_path):
    written(tmp_path)
    assert StudyFolder(tmp_path).read_proposals() == tuple(proposal(number) for number in range(3))


def test_parameter_types_survive(tmp_path):
    (read,) = read_proposals(written(tmp_path, 1))
    assert {name: type(value) for name, value in read.params.items()} == {
        "prefill_workers": int,
        "target_qps": float,
        "graphs": str,
        "chunked": bool,
    }


def test_missing_file_has_no_proposals(tmp_path):
    assert StudyFolder(tmp_path).read_proposals() == ()


@given(cut=st.integers(1, 120))
def test_torn_last_line_is_skipped_and_overwritten(tmp_path_factory, cut):
    path = written(tmp_path_factory.mktemp("study"))
    whole = path.read_bytes()
    last = len(whole) - whole[:-1].rindex(b"\n") - 1
    cut = min(cut, last)
    path.write_bytes(whole[:-cut])
    kept = 3 if cut == 1 else 2  # without only its line end the last one is whole
    assert read_proposals(path) == tuple(proposal(number) for number in range(kept))
    append_proposal(path, proposal(9))
    assert [read.number for read in read_proposals(path)] == [*range(kept), 9]
    assert path.read_bytes().endswith(b"\n")


def test_torn_only_line_is_skipped(tmp_path):
    path = tmp_path / "proposals.jsonl"
    path.write_text('{"number": 0, "par')
    assert read_proposals(path) == ()
    append_proposal(path, proposal(0))
    assert read_proposals(path) == (proposal(0),)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"number": 1, "par', "Invalid JSON"),
        ("", "Invalid JSON"),
        ('{"number": 1}', "params: Field required"),
        ('{"number": -1, "params": {}, "source": "x", "trial_id": "a"}', "number: Input should be greater"),
        ('{"number": 1, "params": {"a": {"b": 1}}, "source": "x", "trial_id": "a"}', "params.a"),
    ],
)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_damaged_whole_line_is_named_in_the_error(line, fault, at, tmp_path):
    path = written(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:at], line, *lines[at:]]) + "\n")
    with pytest.raises(ResumableError) as raised:
        read_proposals(path)
    assert str(raised.value).startswith(f"{path}, line {at + 1}: not a proposal (")
    assert fault in str(raised.value)
    assert "Repair the line or move the file away" in str(raised.value)


def test_unwritable_proposals_raise(tmp_path):
    (tmp_path / "proposals.jsonl").mkdir()
    with pytest.raises(ConfigurationError, match=r"proposals\.jsonl: is a folder"):
        StudyFolder(tmp_path).append_proposal(proposal(0))
    with pytest.raises(ResumableError, match=r"proposals\.jsonl: cannot be read"):
        StudyFolder(tmp_path).read_proposals()


def test_a_number_without_end_is_named(tmp_path):
    path = tmp_path / "proposals.jsonl"
    line = '{"number": 0, "params": {"target_qps": %s}, "source": "random", "trial_id": "t0"}\n'
    path.write_text(line % "14" + line % ("9" * 400))
    with pytest.raises(ResumableError, match=r"proposals\.jsonl, line 2: not a proposal .* Repair the line"):
        read_proposals(path)
