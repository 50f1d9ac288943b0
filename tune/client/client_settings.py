"""Read the settings of one run of the load client: the JSON that a plan writes for it, and a URL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt, ValidationError

from tune.errors import ConfigurationError
from tune.spec.base import FrozenModel, NonNegativeInt
from tune.spec.load import Load, Slo
from tune.spec.split import FrontendChoice

STOPPED_EXIT_CODE = 4
"""Exit code of a client whose run was stopped because it could no longer hold its SLO."""


class ClientRun(FrozenModel):
    """Describe one LoadGen run of `load`, judged by `slo`: the content of `client.json`.

    `max_seq_len`: tokens of prompt and answer together at which the engines end an answer.
    `stop_when_futile`: the run ends when it is certain that it cannot hold `slo`. `earlier_runs`: number of
    runs that this deployment has served before; prompts made to length then differ from theirs, which its
    prefix cache may hold. `nvext`: the endpoint is Dynamo before its CommonExt (mid 2025), which reads top_k
    and ignore_eos from the object `nvext` alone. Dynamo 1.6.1 answers every request that names them there
    with 400, unknown field. `frontend_choice`: how the frontend of a request is chosen, of several.
    `tokenizer`: file tokenizer.json of the model; with it the run is an accuracy run of the whole dataset.
    """

    served_model_name: Annotated[str, Field(min_length=1)]
    load: Load
    slo: Slo
    max_seq_len: PositiveInt
    stop_when_futile: bool = False
    earlier_runs: NonNegativeInt = 0
    nvext: bool = False
    frontend_choice: FrontendChoice = "round_robin"
    tokenizer: str | None = None


class ClientSettings(ClientRun):
    """Describe one run against the frontends of a deployment, whose hosts are known only where it runs."""

    endpoint_urls: Annotated[
        tuple[Annotated[str, Field(pattern=r"^https?://[^/\s]+(/[^\s]*)?$")], ...], Field(min_length=1)
    ]


def read_client_settings(path: Path, endpoint_urls: Sequence[str]) -> ClientSettings:
    """Return the run that the JSON file `path` describes, against the frontends at `endpoint_urls`.

    Raises ConfigurationError, which names every wrong value.
    """
    try:
        client_run = ClientRun.model_validate_json(path.read_bytes())
        return ClientSettings.model_validate(dict(client_run) | {"endpoint_urls": tuple(endpoint_urls)})
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read ({error.strerror}); expected the client settings, a JSON object. "
            "Give the client.json of a rendered plan."
        ) from error
    except ValidationError as error:
        findings = "\n".join(
            f"  {'.'.join(str(part) for part in finding['loc']) or 'the whole'}: {finding['msg']}"
            for finding in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(
            f"{path}: {error.error_count()} finding(s) in the client settings:\n{findings}\n"
            "Correct the file, or render the plan again."
        ) from error
