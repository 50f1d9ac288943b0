"""Errors, named by what the caller does next. Each carries the exit code of the command line."""


class TuneError(Exception):
    """A message for the user: what was found, what was expected, where, and what to do."""

    exit_code = 3


class ConfigurationError(TuneError):
    """The configuration or the command is wrong and nothing was run: change it and run again."""

    exit_code = 2


class NegativeResult(TuneError):
    """The work was done and the answer is no: nothing feasible, or findings."""

    exit_code = 1


class ResumableError(TuneError):
    """Stopped before its end (a failed trial, a broken file, a budget): the same command resumes."""

    exit_code = 3
