"""Write the model folder of mock engines: python -m tune.engines.dynamo_mocker FOLDER."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tune.engines.model_folder import write_model_folder
from tune.errors import TuneError


def main() -> int:
    """Write the folder that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tune.engines.dynamo_mocker", description=__doc__)
    parser.add_argument("folder", type=Path)
    try:
        write_model_folder(parser.parse_args().folder)
    except TuneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
