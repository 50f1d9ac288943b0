"""Scrape the metrics of frontend and workers in a thread while a probe runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tune.core.files import make_folder, no_link
from tune.manifest.process import Process
from tune.orchestrator.launcher import NodeAddresses
from tune.orchestrator.worker_metrics import scrape
from tune.records.scrapes import METRICS_FILE, MetricsWriter

SCRAPE_INTERVAL_S = 2.0
"""Seconds between two scrapes of a process.

Often enough for means over a probe of a minute; scraping all processes of a rack costs 1 to 2 % of a core.
"""


class Scraper:
    """Write the metrics of `processes` with a metrics port into `folder`/metrics.jsonl while entered."""

    def __init__(self, processes: Sequence[Process], nodes: NodeAddresses, folder: Path) -> None:
        self._processes = [process for process in processes if process.metrics_port is not None]
        self._nodes, self._folder = nodes, folder
        self._stop = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def __enter__(self) -> Self:
        make_folder(self._folder)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End with a last scrape. Raises what kept the thread from writing, unless the block raised too."""
        self._stop.set()
        self._thread.join()
        if self._fault and error is None:
            raise self._fault

    def _run(self) -> None:
        """Scrape until stopped; keep an exception for the end of the block."""
        try:
            with open(self._folder / METRICS_FILE, "w", encoding="utf-8", opener=no_link) as file:
                writer = MetricsWriter(file)
                while not self._stop.wait(self._scrape_all(writer)):
                    pass
                self._scrape_all(writer)
        except BaseException as error:  # of a thread: the one that waits for it raises it again
            self._fault = error

    def _scrape_all(self, writer: MetricsWriter) -> float:
        """Scrape every process once; return the seconds until the next round."""
        started_s = time.monotonic()
        for process in self._processes:
            try:
                samples = scrape(process, self._nodes)
            except OSError as error:
                writer.write_missed(process.name, time.time(), str(error))
            else:
                writer.write(process.name, time.time(), samples)
        return max(0.0, SCRAPE_INTERVAL_S - (time.monotonic() - started_s))
