"""Measure how long the page of a study takes to open in Chromium, by the browser's own clock.

    python benchmarks/page_open_time.py [--trials 2000] [--times 5]

Each time a browser with an empty profile loads the page of as many synthetic trials as asked, from a server
on this machine, and reports in milliseconds from the start of the navigation: the first paint with content,
the end of the document's own scripts (domContentLoaded), the load event, and the end of the last long task
(one of 50 ms or more), after which the page answers. The start of the browser is not counted. The page is
open when all of them are past. Where other programs use the cores, the processor seconds of the browser, its
start included, compare with those of a page of one trial (--trials 1). Needs chromium or google-chrome.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from machine import session_cpu_s
from support.synthetic_study import mixed, study

from tune.report.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,800")
WAIT_S = 120
"""Seconds after which a page that has not reported counts as never open."""

QUIET_MS = 1000
"""Milliseconds without a long task after which the page reports; they are not counted. Chosen here."""

TIMER = """<script>
let last = 0;
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) last = Math.max(last, task.startTime + task.duration);
}).observe({ type: "longtask", buffered: true });
addEventListener("load", () => {
  const wait = setInterval(() => {
    const [page] = performance.getEntriesByType("navigation");
    const [paint] = performance.getEntriesByName("first-contentful-paint");
    if (!paint || performance.now() - Math.max(last, page.loadEventEnd) < QUIET_MS) return;
    clearInterval(wait);
    const ended = { "first paint": paint.startTime, "scripts": page.domContentLoadedEventEnd };
    Object.assign(ended, { "load": page.loadEventEnd, "last long task": last });
    navigator.sendBeacon("/", JSON.stringify(ended));
  }, 100);
});
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serve a folder, and put what a page reports into the queue `reports`."""

    reports: queue.Queue[dict[str, float]] = queue.Queue()

    def do_POST(self) -> None:
        """Take one report."""
        self.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def with_timer(text: str) -> str:
    """Return a page that reports to its server, which the policy of a page does not allow by itself."""
    allowed = text.replace("default-src 'none'", "default-src 'none'; connect-src 'self'")
    return allowed.replace("<head>", "<head>" + TIMER.replace("QUIET_MS", str(QUIET_MS)))


def opened(url: str, profile: Path) -> dict[str, float]:
    """Open the page in a new browser; return the milliseconds at which each part of it ended."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", url]
    browser = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        ended = Handler.reports.get(timeout=WAIT_S)
        return ended | {"processors": 1e3 * session_cpu_s(browser.pid)}
    finally:
        browser.terminate()
        browser.wait()


def main() -> None:
    """Write the page, open it several times, and print the medians and the slowest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit(
            "no chromium or google-chrome found; expected one in PATH. Install it: apt-get install chromium"
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "report"
        page = write_report(folder, study(n_trials=options.trials), mixed(options.trials))
        size_mb = page.stat().st_size / 1e6
        page.write_text(with_timer(page.read_text(encoding="utf-8")), encoding="utf-8")
        handler = functools.partial(Handler, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/{page.name}"
            runs = [opened(url, Path(scratch) / f"profile-{number}") for number in range(options.times)]
            server.shutdown()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {options.trials} trials, {size_mb:.1f} MB, {options.times} times")
    for part in runs[0]:
        times_ms = [run[part] for run in runs]
        print(f"{part:15} {statistics.median(times_ms):6.0f} ms median {max(times_ms):6.0f} ms slowest")


if __name__ == "__main__":
    main()
