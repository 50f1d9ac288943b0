"""`metrics.jsonl`: what frontend and workers said of themselves in a probe, one line a scrape of a process.

What is scraped is in Prometheus' text exposition format. A line holds `new`, the names of samples that the
process had not shown before, numbered from 0 in order of appearance, and `changed`, {number: value} of those
that differ from its scrape before: so all counters of a rack fit some megabytes for a long run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tune.errors import ResumableError

METRICS_FILE = "metrics.jsonl"

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?\s+(\S+)(?:\s+-?\d+)?$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
"""Source: Prometheus, Exposition formats, text-based format."""


def parse_samples(text: str) -> dict[str, float]:
    """Value by `name{labels}`, as written. Left out are comments, what is no sample, NaN, infinities and the
    buckets of histograms, whose sums and counts stay."""
    found = {}
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
            found[name + labels] = number
    return found


def total(samples: Mapping[str, float], name: str, **labels: str) -> float | None:
    """Sum of the samples of `name` that carry all of `labels`; None where there is none."""
    values = []
    for key, value in samples.items():
        bare, brace, rest = key.partition("{")
        if bare == name and (not labels or labels.items() <= dict(_LABEL.findall(brace + rest)).items()):
            values.append(value)
    return sum(values) if values else None


@dataclass
class MetricsWriter:
    """Appends scrapes to `file`; times are seconds since the epoch."""

    file: TextIO
    _numbers: dict[str, dict[str, int]] = field(default_factory=dict)
    _last: dict[str, dict[str, float]] = field(default_factory=dict)

    def write(self, process: str, at_s: float, samples: Mapping[str, float]) -> None:
        """Add what changed of the samples of `process`."""
        numbers, last = self._numbers.setdefault(process, {}), self._last.setdefault(process, {})
        new = [name for name in samples if name not in numbers]
        numbers |= {name: len(numbers) + index for index, name in enumerate(new)}
        changed = {numbers[name]: value for name, value in samples.items() if last.get(name) != value}
        last |= samples
        self._line({"at_s": round(at_s, 3), "process": process, "new": new, "changed": changed})

    def write_missed(self, process: str, at_s: float, why: str) -> None:
        """Note that `process` did not answer."""
        self._line({"at_s": round(at_s, 3), "process": process, "missed": why})

    def _line(self, line: dict[str, object]) -> None:
        self.file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self.file.flush()


@dataclass(frozen=True)
class Scrape:
    """All samples of `process` at `at_s`, seconds since the epoch; without any where it did not answer."""

    process: str
    at_s: float
    samples: Mapping[str, float]


def read_metrics(path: Path) -> list[Scrape]:
    """Every scrape in order of writing; a last line that a kill tore off is left out.

    Raises ResumableError where the file is missing or another line is torn.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return _scrapes([json.loads(line) for line in lines])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResumableError(
            f"{path}: not a readable record of metrics ({error!r}); expected a line a scrape, as a probe "
            "writes them. Run the trial again with rerun=true."
        ) from error


def _scrapes(lines: list[dict[str, Any]]) -> list[Scrape]:
    names: dict[str, list[str]] = {}
    state: dict[str, dict[str, float]] = {}
    found = []
    for line in lines:
        process, at_s = line["process"], line["at_s"]
        if "missed" in line:
            found.append(Scrape(process, at_s, {}))
            continue
        known = names.setdefault(process, [])
        known += line["new"]
        changed = {known[int(number)]: value for number, value in line["changed"].items()}
        state[process] = state.get(process, {}) | changed
        found.append(Scrape(process, at_s, state[process]))
    return found
