"""Test the metrics of the benchmark's accuracy, its targets, and their reading of a dataset and a log."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.accuracy_dataset import AccuracyFiles, write_accuracy_files
from support.right_client import make_settings

from tune.analysis.accuracy_targets import missed_targets
from tune.analysis.answer_scores import mean_scores
from tune.errors import ConfigurationError, ResumableError
from tune.loadgen.accuracy_log import ACCURACY_LOG, read_answers
from tune.spec.dataset import Dataset
from tune.workload.mlperf_pickle import ReferenceAnswer, read_pickle_references

UUID, OTHER = "0123abcd-1111-2222-3333-0123456789ab", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"


def score(metric: str, reference: str, answer: str) -> float:
    scores = mean_scores([answer], [ReferenceAnswer(reference, metric)], 1)
    (value,) = [value for value in scores if value is not None]
    return value


@pytest.mark.parametrize(
    ("metric", "reference", "answer", "expected"),
    [
        ("rouge", "The dogs were running.", "the dog was run", 75.0),
        ("rouge", "one two three four", "four one two", 100 * 2 * (2 / 3 * 2 / 4) / (2 / 3 + 2 / 4)),
        ("rouge", "one", "", 0.0),
        ("qa_em", "Paris|City of Light", "It is late. Answer: paris, I think", 100.0),
        ("qa_em", "Paris|City of Light", "Answer: Rome. Answer: the city of\nlight", 100.0),
        ("qa_em", "Paris", "Answer: Paris. Answer: Rome", 0.0),
        ("qa_em", "New York City", "York", 100.0),
        ("niah_em", f"key {UUID}", f"It is {UUID.upper()}.", 100.0),
        ("niah_em", f"key {UUID}", f"It is {UUID} or {OTHER}.", 50.0),
        ("niah_em", f"key {UUID}", f"It is {OTHER}.", round(100 * 4 / 36, 2)),
        ("niah_em", f"key {UUID}", "No key.", 0.0),
    ],
)
def test_an_answer_scores_as_in_the_benchmark(
    metric: str, reference: str, answer: str, expected: float
) -> None:
    assert score(metric, reference, answer) == pytest.approx(expected)


@given(st.lists(st.sampled_from(["stone", "rivers", "Answer:", "ran", UUID]), min_size=1))
def test_white_space_and_case_change_no_rouge_and_a_right_answer_is_right(words: list[str]) -> None:
    text = " ".join(words)
    assert score("rouge", text, "\n".join(words).upper()) == pytest.approx(100)
    assert score("qa_em", text, f"Answer: {text}") == 100
    if UUID in words:
        assert score("niah_em", text, text) == 100


def test_means_are_over_the_samples_with_the_metric_and_do_not_depend_on_processes() -> None:
    texts = [
        ReferenceAnswer("one two", "rouge"),
        ReferenceAnswer("a", "qa_em"),
        ReferenceAnswer(UUID, "niah_em"),
    ]
    answers = ["one two", "b", UUID]
    assert mean_scores(answers, texts, 1) == (100, 50)
    assert mean_scores(answers[:1], texts[:1], 1).exact_match is None


@pytest.mark.slow
def test_several_processes_give_the_same_means() -> None:
    texts = [ReferenceAnswer(f"word {row} stone", "rouge") for row in range(300)]
    answers = [f"word {row % 7} stones" for row in range(300)]
    assert mean_scores(answers, texts, 2) == mean_scores(answers, texts, 1)


def test_targets_are_those_of_the_benchmark() -> None:
    published = {"rouge_l": 21.4576, "exact_match": 90.087, "tokens_per_sample": 629.9, "failed": 0}
    assert missed_targets(**published) == ()
    for change, words in (
        ({"rouge_l": 21.449}, "ROUGE-L 21.4490, expected at least 21.4499"),
        ({"exact_match": 89.232}, "exact match 89.2320, expected at least 89.2322"),
        ({"tokens_per_sample": 616.2}, "616.2 tokens a sample, expected 616.21 to 753.15"),
        ({"tokens_per_sample": 753.2}, "753.2 tokens a sample, expected 616.21 to 753.15"),
        ({"failed": 3}, "3 requests failed, expected an answer to each"),
    ):
        assert missed_targets(**published | change) == (words,)


def test_references_are_read_in_order_and_an_unknown_metric_is_named(tmp_path: Path) -> None:
    files = write_accuracy_files(tmp_path, 4)
    references = read_pickle_references(make_settings(**files.changes).load.dataset)
    assert [reference.text for reference in references] == list(files.references)
    assert [reference.metric for reference in references] == ["rouge", "qa_em", "niah_em", "rouge"]
    frame = pd.read_pickle(files.dataset)
    with pytest.raises(ConfigurationError, match="metric holds bleu; expected rouge, niah_em, qa_em"):
        read_pickle_references(written(files.dataset, frame.assign(metric="bleu")))
    with pytest.raises(ConfigurationError, match="expected a DataFrame with gt_output and metric"):
        read_pickle_references(written(files.dataset, frame.drop(columns="gt_output")))


def written(path: Path, frame: pd.DataFrame) -> Dataset:
    """Write `frame` to `path` and return its dataset."""
    frame.to_pickle(path)
    files = AccuracyFiles(path, path, ("",) * len(frame))
    return make_settings(**files.changes).load.dataset


def test_first_answer_to_a_sample_counts_and_a_torn_log_is_refused(tmp_path: Path) -> None:
    log = tmp_path / ACCURACY_LOG
    log.write_text(
        '[\n{"seq_id": 0, "qsl_idx": 3, "data": "07000000FFFF0000", "token_count": 5},\n'
        '{"seq_id": 1, "qsl_idx": 3, "data": "01000000"},\n{"seq_id": 2, "qsl_idx": 1, "data": ""}]'
    )
    first, second = read_answers(tmp_path)
    assert (first.sample, first.ids.tolist(), first.reported_tokens) == (3, [7, 65535], 5)
    assert (second.sample, second.ids.tolist(), second.reported_tokens) == (1, [], 0)
    log.write_text(log.read_text()[:-9])
    with pytest.raises(ResumableError, match="expected LoadGen's accuracy log"):
        read_answers(tmp_path)
