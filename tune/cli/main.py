"""Parse the command line, dispatch to its action, and set the exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from types import FrameType

from tune.cli.output import show_error
from tune.cli.standard_streams import lost_output, make_streams_safe
from tune.cli.tab_completion import answer_completion
from tune.config import ComposedConfig, compose_command_line
from tune.core.plain_warnings import show_plain_warnings
from tune.errors import ResumableError, TuneError

_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells report it."""

ACTIONS: Mapping[str, str] = {
    "run": "tune.cli.run_commands:run_action",
    "plan": "tune.cli.plan_commands:plan_action",
    "preflight": "tune.cli.plan_commands:preflight_action",
    "bootstrap": "tune.cli.bootstrap_command:bootstrap_action",
    "status": "tune.cli.recorded_commands:status_action",
    "logs": "tune.cli.recorded_commands:logs_action",
    "cancel": "tune.cli.recorded_commands:cancel_action",
    "report": "tune.cli.report_commands:report_action",
    "confirm": "tune.cli.confirm_command:confirm_action",
    "compare": "tune.cli.report_commands:compare_action",
    "parse": "tune.cli.report_commands:parse_action",
    "calibrate": "tune.cli.calibrate_command:calibrate_action",
    "export": "tune.cli.export_command:export",
    "import": "tune.cli.import_command:import_action",
    "steps": "tune.cli.steps_command:steps_action",
    "image": "tune.cli.image_command:image_action",
}
"""Module and function of each value of `action`; the module is imported when the action runs."""


def _acknowledge_interrupts() -> None:
    """Answer Ctrl-C at once in words; what runs then ends, which may take a moment."""

    def acknowledge(number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # Ctrl-C in the middle of another line
            print("Ctrl-C: ending what runs; everything recorded is kept.", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, acknowledge)


def _leave_threads() -> None:
    """End this process at once where a second Ctrl-C left threads that compute: it would wait for them."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)


def action_function(action: str) -> Callable[[ComposedConfig], None]:
    """Import and return the function of an action."""
    module, _, name = ACTIONS[action].partition(":")
    function: Callable[[ComposedConfig], None] = getattr(import_module(module), name)
    return function


def run_command_line() -> int:
    """Run `sys.argv` and return the exit code, which also says whether what was printed was written."""
    make_streams_safe()
    show_plain_warnings()
    _acknowledge_interrupts()
    if any(word.startswith("-") for word in sys.argv[1:]):  # only a flag asks for help on the settings
        from tune.cli.settings_reference import register_settings_help

        register_settings_help()
    try:
        exit_code = _run_action()
    except SystemExit as ended:  # Hydra answered by itself
        exit_code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    lost = lost_output()
    if lost is None:
        return exit_code
    show_error(
        f"standard output: {lost.strerror or lost}; some of what was printed is lost. Everything recorded is "
        "intact; the same command prints it again."
    )
    return exit_code or ResumableError.exit_code


def _run_action() -> int:
    """Compose `sys.argv`, run its action, print errors, and return the exit code."""
    try:
        composition = None if answer_completion(sys.argv[1:]) else compose_command_line()
        if composition is None:
            return 0
        action_function(composition.settings.action)(composition)
    except TuneError as error:
        show_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends what is left of this process
        print("Interrupted. Results so far are saved; run the same command to resume.", file=sys.stderr)
        _leave_threads()
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # an error inside tune: print its trace, and that the records are intact
        traceback.print_exc()
        print(
            "Internal error in tune. Recorded results are intact; the same command resumes from them.",
            file=sys.stderr,
        )
        return ResumableError.exit_code
    return 0
