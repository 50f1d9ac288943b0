"""Run the accuracy mode of the real LoadGen against a streaming server, and evaluate what it logged."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.accuracy_dataset import AccuracyFiles, write_accuracy_files
from support.right_client import client_command, run_command
from support.streaming_server import Seen, StreamingServer

from tune.loadgen.accuracy_log import read_answers
from tune.loadgen.log_reader import read_logs
from tune.records.accuracy import Accuracy


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> AccuracyFiles:
    return write_accuracy_files(tmp_path_factory.mktemp("files"))


def run(folder: Path, server: StreamingServer, files: AccuracyFiles) -> subprocess.CompletedProcess[str]:
    """Run the accuracy run of `files` against `server`; its record goes into `folder`/accuracy."""
    command = client_command(
        folder,
        endpoint_urls=[server.url],
        load__target_qps=400.0,
        tokenizer=str(files.tokenizer),
        **files.changes,
    )
    return run_command([*command[:-1], str(folder / "accuracy")])


@pytest.mark.slow
def test_right_answers_are_accurate_and_logged_as_the_benchmark_reads_them(
    tmp_path: Path, files: AccuracyFiles
) -> None:
    def reference(seen: Seen) -> str:
        return files.references[seen.body["prompt"][0]]

    with StreamingServer(answer_of=reference, tokens_per_event=50) as server:
        done = run(tmp_path, server, files)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "accuracy"
    assert sorted(path.name for path in folder.iterdir()) == [
        "accuracy.json", "mlperf_log_accuracy.json", "mlperf_log_detail.txt", "mlperf_log_summary.txt",
    ]  # fmt: skip
    assert sorted(seen.body["prompt"][0] for seen in server.seen) == list(range(24)), "each sample once"
    accuracy = Accuracy.model_validate_json((folder / "accuracy.json").read_bytes())
    assert (accuracy.rouge_l, accuracy.exact_match) == (pytest.approx(100), pytest.approx(100))
    assert (accuracy.tokens_per_sample, accuracy.reported_tokens_per_sample) == (650, 650)
    assert (accuracy.samples, accuracy.failed, accuracy.missed) == (24, 0, ())
    assert done.stderr.splitlines()[-2:] == [accuracy.result_line, "accuracy held"]
    assert read_logs(folder).mode == "AccuracyOnly"
    answers = {answer.sample: answer.ids for answer in read_answers(folder)}
    assert sorted(answers) == list(range(24))
    assert len(set(map(tuple, answers.values()))) == 24, "every sample has its own answer"
    (entry, *_) = json.loads((folder / "mlperf_log_accuracy.json").read_bytes())
    assert entry["token_count"] == len(entry["data"]) // 8 == 650


@pytest.mark.slow
def test_wrong_answers_and_failed_requests_miss_the_targets(tmp_path: Path, files: AccuracyFiles) -> None:
    def wrong(_: Seen) -> str:
        return "nothing " * 10

    with StreamingServer(
        answer_of=wrong, tokens_per_event=50, fault_of=lambda n: "error_object" if n == 7 else None
    ) as server:
        done = run(tmp_path, server, files)
    assert done.returncode == 0, done.stderr
    accuracy = Accuracy.model_validate_json((tmp_path / "accuracy" / "accuracy.json").read_bytes())
    assert accuracy.failed == 1
    assert (accuracy.rouge_l, accuracy.tokens_per_sample) == (0, pytest.approx(80 * 23 / 24))
    rouge, exact, tokens, failed = accuracy.missed
    assert rouge == "ROUGE-L 0.0000, expected at least 21.4499"
    assert exact.endswith("expected at least 89.2322")
    assert tokens == "76.7 tokens a sample, expected 616.21 to 753.15"
    assert failed == "1 requests failed, expected an answer to each"


@pytest.mark.slow
def test_missing_tokenizer_is_named_before_anything_is_sent(tmp_path: Path, files: AccuracyFiles) -> None:
    (tmp_path / "here").mkdir()
    nowhere = AccuracyFiles(files.dataset, tmp_path / "nowhere.json", files.references)
    with StreamingServer() as server:
        done = run(tmp_path / "here", server, nowhere)
    assert done.returncode == 2
    assert "nowhere.json: no tokenizer was read" in done.stderr
    assert "Give cluster.tokenizer=FILE." in done.stderr
    assert not server.seen
