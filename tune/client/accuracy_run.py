"""Measure the accuracy of a deployment: LoadGen sends every sample once, and the answers are compared."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tune.analysis.accuracy_targets import missed_targets
from tune.analysis.answer_scores import mean_scores, require_scorer
from tune.client.answer_tokenizer import AnswerTokenizer, load_tokenizer
from tune.client.client_settings import ClientSettings
from tune.client.endpoint import check_endpoints
from tune.client.http_exchange import Clock
from tune.client.loadgen_driver import AnswerSink, run_loadgen
from tune.client.prompts import Prompts
from tune.client.request_dispatcher import RequestDispatcher
from tune.client.request_tracker import RequestTracker
from tune.client.schedule import accuracy_schedule
from tune.core.threads import available_cores
from tune.loadgen.accuracy_log import read_answers
from tune.loadgen.run_settings import loadgen_settings
from tune.records.accuracy import Accuracy, write_accuracy
from tune.workload.mlperf_pickle import read_pickle_references

_PROGRESS_INTERVAL_S = 5.0


def run_accuracy(
    settings: ClientSettings, folder: Path, clock: Clock, print_line: Callable[[str], None]
) -> None:
    """Send every sample of the dataset once, and leave LoadGen's logs and accuracy.json in `folder`.

    Parameters
    ----------
    settings
        The run and its endpoints; with a `tokenizer`.
    folder
        Receives the logs and the record.
    clock
        Counts nanoseconds and never jumps.
    print_line
        Shows a line of progress.

    Raises
    ------
    ConfigurationError
        The dataset or the tokenizer cannot be used, or a package is not installed.
    ResumableError
        An endpoint does not serve the model, or LoadGen left no logs.
    """
    require_scorer()
    tokenizer = load_tokenizer(str(settings.tokenizer))
    asyncio.run(check_endpoints(settings))
    run = _AccuracyRun(settings, folder, tokenizer, clock)
    print_line(f"accuracy: {run.samples} samples at {settings.load.offered_qps:g}/s")
    run.watch(print_line)
    accuracy = evaluate(settings, folder, tokenizer, failed=run.failed, print_line=print_line)
    write_accuracy(folder, accuracy)
    print_line(accuracy.result_line)
    print_line(f"accuracy missed: {'; '.join(accuracy.missed)}" if accuracy.missed else "accuracy held")


class _AccuracyRun:
    """Run LoadGen's accuracy mode in one thread and the dispatcher in another."""

    def __init__(
        self, settings: ClientSettings, folder: Path, tokenizer: AnswerTokenizer, clock: Clock
    ) -> None:
        load, schedule = settings.load, accuracy_schedule(settings)
        self._folder, self._tokenizer, self._clock = folder, tokenizer, clock
        self._loadgen = loadgen_settings(load, settings.slo, 0)
        self._tracker = RequestTracker(schedule, sends_ids=load.api == "completions", keeps_text=True)
        self._sample_of: dict[int, int] = {}
        prompts = Prompts(
            settings.served_model_name, load, schedule, nvext=settings.nvext, rows=np.arange(len(schedule))
        )
        sink = AnswerSink(self._take_ids)
        self._dispatcher = RequestDispatcher(settings, self._tracker, prompts, sink, clock)
        self._thread = threading.Thread(target=self._run_loadgen, name="loadgen", daemon=True)
        self._error: BaseException | None = None

    @property
    def samples(self) -> int:
        """Return the number of samples of the dataset."""
        return len(self._tracker.responses)

    @property
    def failed(self) -> int:
        """Return the number of requests that failed."""
        return sum(1 for response in self._tracker.responses if response.error)

    def watch(self, print_line: Callable[[str], None]) -> None:
        """Run until every sample is answered, with a line of progress every few seconds.

        Raises the error of a thread that failed.
        """
        self._dispatcher.start()
        self._thread.start()
        while self._thread.is_alive():
            self._thread.join(_PROGRESS_INTERVAL_S)
            done = sum(1 for response in self._tracker.responses if response.finished)
            print_line(f"issued {self._tracker.issued}/{self.samples}  done {done}  errors {self.failed}")
            self._dispatcher.check()
        if self._error:
            raise self._error
        self._dispatcher.stop()

    def _run_loadgen(self) -> None:
        """Run LoadGen in its thread; keep an exception for `watch`."""
        try:
            run_loadgen(self._loadgen, self._folder, self._issue, "accuracy")
        except BaseException as error:  # of a thread: `watch` raises it in the one that waits
            self._error = error

    def _issue(self, response_id: int, sample: int) -> None:
        """Pass a query on to the dispatcher."""
        self._sample_of[response_id] = sample
        self._tracker.note_issue_of(sample, self._clock())
        self._dispatcher.submit(sample, response_id)

    def _take_ids(self, response_id: int) -> list[int]:
        """Return the token ids of an answer and drop its text; none for a request that failed."""
        response = self._tracker.responses[self._sample_of.pop(response_id)]
        pieces, response.pieces = response.pieces or [], None
        return [] if response.error else self._tokenizer.encode("".join(pieces))


def evaluate(
    settings: ClientSettings,
    folder: Path,
    tokenizer: AnswerTokenizer,
    *,
    failed: int,
    print_line: Callable[[str], None],
) -> Accuracy:
    """Compare the answers in LoadGen's accuracy log in `folder` with the dataset's reference answers.

    Parameters
    ----------
    settings
        The run that left the log.
    folder
        Folder of the log.
    tokenizer
        Tokenizer that decodes the ids of the log.
    failed
        Number of requests that failed.
    print_line
        Shows a line of progress.
    """
    references = read_pickle_references(settings.load.dataset)
    answers = read_answers(folder)
    texts = [text.strip() for text in tokenizer.decode_all([answer.ids.tolist() for answer in answers])]
    processes = available_cores()
    print_line(f"comparing {len(texts)} answers with their references on {processes} cores")
    scores = mean_scores(texts, [references[answer.sample] for answer in answers], processes)
    tokens = sum(len(answer.ids) for answer in answers)
    tokens_per_sample = tokens / len(answers)
    return Accuracy(
        target_qps=settings.load.offered_qps,
        samples=len(answers),
        failed=failed,
        rouge_l=scores.rouge_l,
        exact_match=scores.exact_match,
        tokens_per_sample=tokens_per_sample,
        reported_tokens_per_sample=sum(answer.reported_tokens for answer in answers) / len(answers),
        tokens=tokens,
        characters=sum(map(len, texts)),
        missed=missed_targets(**scores._asdict(), tokens_per_sample=tokens_per_sample, failed=failed),
    )
