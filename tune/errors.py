"""Define the errors that users see, one class for each exit code of the command line."""


class TuneError(Exception):
    """Carry a message for the user: what was found, what was expected, where, and what to do.

    Raise one of the three subclasses. Any other exception is an error inside tune; the command line prints
    its trace and exits with code 3.
    """

    exit_code = 3


class ConfigurationError(TuneError):
    """Report that the configuration or the command is wrong: the user changes it and runs again. Exit code 2.

    Raise it before anything runs: a setting that does not validate or breaks a rule, a study or file that
    does not exist, a folder that cannot be written, records of another version, a study that another
    process runs. Raise it during a run only where no repetition of the same command can succeed.
    """

    exit_code = 2


class NegativeResult(TuneError):
    """Report that the work is done and the answer is no. Exit code 1.

    Raise it where a search ends without a configuration that holds its SLO, or preflight finds errors. All
    results are recorded; repeating the command gives the same answer.
    """

    exit_code = 1


class ResumableError(TuneError):
    """Report that work stopped before its end, and the same command resumes it. Exit code 3.

    Raise it where the cause is outside the configuration: a failed trial, a full disk, a damaged record, an
    exhausted budget, a scheduler that does not answer. State in the message what to fix first, if anything.
    """

    exit_code = 3
