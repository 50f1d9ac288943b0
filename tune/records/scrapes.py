"""Read and write `metrics.jsonl`: the metrics of frontend and workers during a probe, one line per scrape.

The scraped text is in Prometheus' text exposition format. A line holds `new`, the names of samples that the
process had not shown before, numbered from 0 in order of appearance, and `changed`, {number: value} of those
that differ from the previous scrape. In this form all counters of a rack take a few megabytes for a long run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tune.core.files import MOVE_ATTEMPT
from tune.errors import ResumableError

METRICS_FILE = "metrics.jsonl"

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?\s+(\S+)(?:\s+-?\d+)?$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
"""Source: Prometheus, Exposition formats, text-based format."""


def parse_samples(text: str) -> dict[str, float]:
    """Return the value of each sample by `name{labels}`, as written in `text`.

    Comments, lines that are no samples, NaN, infinities and the buckets of histograms are left out; the
    sums and counts of histograms stay.
    """
    samples = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None or sample[1].endswith("_bucket"):
            continue
        name, labels, value = sample.groups(default="")
        try:
            number = float(value)
        except ValueError:
            continue
        if math.isfinite(number):
            samples[name + labels] = number
    return samples


def total(samples: Mapping[str, float], name: str, **labels: str) -> float | None:
    """Return the sum of the samples of a metric.

    Parameters
    ----------
    samples
        Values by the name of their metric with its labels.
    name
        Name of the metric.
    labels
        Labels that a sample has to carry.

    Returns
    -------
    float | None
        The sum, in the unit of the metric; None where there is no such sample.
    """
    values = _values(samples, name, labels)
    return sum(values) if values else None


def mean(samples: Mapping[str, float], name: str) -> float | None:
    """Return the mean of the samples of `name`, such as one of each rank; None where there is none."""
    values = _values(samples, name, {})
    return sum(values) / len(values) if values else None


def _values(samples: Mapping[str, float], name: str, labels: Mapping[str, str]) -> list[float]:
    """Return the samples of `name` that carry all of `labels`."""
    found = []
    for key, value in samples.items():
        bare, brace, rest = key.partition("{")
        if bare == name and (not labels or labels.items() <= dict(_LABEL.findall(brace + rest)).items()):
            found.append(value)
    return found


@dataclass
class MetricsWriter:
    """Append scrapes to `file`; times are seconds since the epoch."""

    file: TextIO
    _numbers: dict[str, dict[str, int]] = field(default_factory=dict)
    _last: dict[str, dict[str, float]] = field(default_factory=dict)

    def write(self, process: str, at_s: float, samples: Mapping[str, float]) -> None:
        """Write the samples of `process` that are new or changed since its last scrape."""
        numbers, last = self._numbers.setdefault(process, {}), self._last.setdefault(process, {})
        new = [name for name in samples if name not in numbers]
        numbers |= {name: len(numbers) + index for index, name in enumerate(new)}
        changed = {numbers[name]: value for name, value in samples.items() if last.get(name) != value}
        last |= samples
        self._line({"at_s": round(at_s, 3), "process": process, "new": new, "changed": changed})

    def write_missed(self, process: str, at_s: float, why: str) -> None:
        """Write that `process` did not answer."""
        self._line({"at_s": round(at_s, 3), "process": process, "missed": why})

    def _line(self, line: dict[str, object]) -> None:
        """Write one line and flush it, so that a kill loses none before it."""
        self.file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self.file.flush()


@dataclass(frozen=True)
class Scrape:
    """Hold all samples of `process` at `at_s`, seconds since the epoch; none where it did not answer."""

    process: str
    at_s: float
    samples: Mapping[str, float]


def read_metrics(path: Path) -> list[Scrape]:
    """Return every scrape in order of writing, without a last line that a kill tore off.

    Raises ResumableError where the file is missing or another line is torn.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return _scrapes([json.loads(line) for line in lines])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResumableError(
            f"{path}: not a readable record of metrics ({error!r}); expected a line a scrape, as a probe "
            f"writes them. {MOVE_ATTEMPT}"
        ) from error


def _scrapes(lines: list[dict[str, Any]]) -> list[Scrape]:
    """Return the scrapes of parsed lines, each with all samples that its process has shown so far."""
    names: dict[str, list[str]] = {}
    state: dict[str, dict[str, float]] = {}
    scrapes = []
    for line in lines:
        process, at_s = line["process"], line["at_s"]
        if "missed" in line:
            scrapes.append(Scrape(process, at_s, {}))
            continue
        known = names.setdefault(process, [])
        known += line["new"]
        changed = {known[int(number)]: value for number, value in line["changed"].items()}
        state[process] = state.get(process, {}) | changed
        scrapes.append(Scrape(process, at_s, state[process]))
    return scrapes
