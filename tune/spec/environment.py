"""Hold environment variables that a user gives to the processes of a deployment.

A variable without a value (null) is passed on by reference: the process gets the value that the variable has
where tune is started, and no file of tune ever holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import PydanticCustomError

from tune.spec.base import FrozenModel

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|(?:API|ACCESS|PRIVATE)_?KEY)(?:_|$)",
    re.IGNORECASE,
)
"""Names of variables whose value is a secret by custom, such as HF_TOKEN or AWS_SECRET_ACCESS_KEY."""


SECRET_VALUE = "secret_value"
"""Type of the validation error for a secret that is written out; its message does not repeat the value."""


def looks_secret(name: str) -> bool:
    """Return whether the value of the variable `name` is a secret, as far as its name tells."""
    return _SECRET.search(name) is not None


def _numbers_as_text(variables: Any) -> Any:
    """Return `variables` with whole numbers as text: YAML and Hydra read the 1 of NAME=1 as a number."""
    if not isinstance(variables, Mapping):
        return variables
    return {name: str(value) if type(value) is int else value for name, value in variables.items()}


def _checked(variables: dict[str, str | None]) -> dict[str, str | None]:
    for name, value in variables.items():
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no name of an environment variable: letters, digits and _")
        if value is not None and looks_secret(name):
            raise PydanticCustomError(
                SECRET_VALUE,
                "{name} looks like a secret, and settings are recorded; expected {name}: null, with the "
                "variable set in the shell that starts tune",
                {"name": name},
            )
        if value is not None and "\0" in value:
            raise ValueError(f"the value of {name} holds a NUL character, which no environment can")
    return variables


Environment = Annotated[
    dict[str, str | None],
    BeforeValidator(_numbers_as_text),
    AfterValidator(_checked),
    Field(default_factory=dict),
]
"""Variables by name. A value is text (whole numbers become text), or None for that of the starting shell."""


def given_values(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables that have a value in the configuration."""
    return {name: value for name, value in variables.items() if value is not None}


def inherited_names(variables: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the names of the variables that are passed on by reference, sorted."""
    return tuple(sorted(name for name, value in variables.items() if value is None))


def recorded_environments(
    environments: Mapping[str, Mapping[str, str | None]],
) -> dict[str, dict[str, str]]:
    """Return the variables for a record, by the path of their setting; "set" for one passed on by reference.

    Groups of processes without variables are left out.
    """
    return {
        path: {name: "set" if value is None else value for name, value in sorted(variables.items())}
        for path, variables in environments.items()
        if variables
    }


class WithEnvironment(FrozenModel):
    """Hold `env`, the variables of a group of processes. Records leave it out where it is empty."""

    env: Environment

    @model_serializer(mode="wrap")
    def _without_empty_environment(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields, without an empty `env`."""
        record: dict[str, Any] = handler(self)
        return record if record["env"] else {name: value for name, value in record.items() if name != "env"}
