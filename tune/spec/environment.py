"""Hold environment variables that a user gives to the processes of a deployment.

A variable without a value (null) is passed on by reference: the process gets the value that the variable has
where tune is started, and no file of tune ever holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from tune.spec.base import FrozenModel

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(
    r"""(?:^|_)(?:
        TOKEN | SECRETS? | CREDENTIALS? | CREDS | AUTH | AUTHORIZATION | BEARER | JWT
        | [A-Z0-9]*(?:PASSWORDS? | PASSWD | PASSPHRASE)
        | (?:API | ACCESS | PRIVATE | ENCRYPTION | SIGNING | MASTER)_?KEY
    )(?:_|$)
    | (?:^|_)(?:KEY | PASS | SSHPASS | PAT)$
    | _PWD$""",
    re.IGNORECASE | re.VERBOSE,
)
"""Names of variables whose value is a secret by custom, such as HF_TOKEN or AWS_SECRET_ACCESS_KEY.

A short word such as KEY, PASS or PWD tells so at the end of a name only; PWD alone is the working folder.
"""
_HARMLESS = re.compile(
    r"""(?:^|_)(?:
        (?:EOS | BOS | PAD | UNK | MASK)_TOKEN
        | TOKEN_(?:IDS? | SAMPLES | WEIGHT | ECHO | COUNT | BUDGET | LIMIT)
        | (?:RUNTIME | CONFIG | CACHE | ROUTING | PUBLIC)_KEY
        | (?:FORWARD | BACKWARD)_PASS
    )(?=_|$)""",
    re.IGNORECASE | re.VERBOSE,
)
"""Parts of names in which these words mean something else, as in variables of Dynamo and vLLM."""
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|-")
_NAMED_VALUE = re.compile(r"""(--?)?([A-Za-z][\w-]*)["']?(?:\s*[=:]|(?(1)[\s,"']|(?!)))\s*(?=\S)""")
"""Matches a name up to its value: `NAME=VALUE`, `NAME: VALUE`, `--NAME VALUE`, and these words in a list."""

SECRET_VALUE = "secret_value"
"""Type of the validation error for a secret that is written out; its message does not repeat the value."""


@cache
def looks_secret(name: str) -> bool:
    """Return whether the value of the variable or key `name` is a secret, as far as its name tells."""
    return _SECRET.search(_HARMLESS.sub("", _WORD_START.sub("_", name))) is not None


def is_secret(name: str, value: str) -> bool:
    """Return whether `value` of the variable `name` is a secret by that name, or by one that stands in it."""
    return looks_secret(name) or _first_secret(value) is not None


def without_secrets(text: str) -> str:
    """Return `text` up to the first value that its name calls a secret, and "set" for the rest."""
    secret = _first_secret(text)
    return f"{text[: secret.end()]}set" if secret else text


def _first_secret(text: str) -> re.Match[str] | None:
    return next((named for named in _NAMED_VALUE.finditer(text) if looks_secret(named[2])), None)


def require_no_secret_keys(keys: Mapping[str, Any]) -> None:
    """Raise PydanticCustomError, where a key at any depth, or a name in its text, looks like a secret."""
    path = next(_secret_paths(keys), None)
    if path is not None:
        raise PydanticCustomError(
            SECRET_VALUE,
            "{path} looks like a secret, and settings are recorded; expected no such key, but its variable "
            "as null in `env` of this pool, and set in the shell that starts tune",
            {"path": path},
        )


def _secret_paths(keys: Mapping[str, Any] | BaseModel, prefix: str = "") -> Iterator[str]:
    """Yield the path of every key that looks like a secret and has a text, or a list with one.

    Where such a name stands in a text, as in `--api-key VALUE`, it follows the path.
    """
    for name, value in keys.items() if isinstance(keys, Mapping) else keys:
        if value is None or isinstance(value, int | float):
            continue
        items = value if isinstance(value, list | tuple) else (value,)
        texts = [item for item in items if isinstance(item, str)]
        if texts and looks_secret(str(name)):
            yield f"{prefix}{name}"
        elif secret := _first_secret(" ".join(texts)):
            yield f"{prefix}{name}: {secret[2]}"
        for item in items:
            if isinstance(item, dict | BaseModel):
                yield from _secret_paths(item, f"{prefix}{name}.")


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
        if value is not None and (secret := _first_secret(value)):
            raise PydanticCustomError(
                SECRET_VALUE,
                "{name} has {secret} in its text, which looks like a secret, and settings are recorded; "
                "expected {secret}: null as a variable of its own, set in the shell that starts tune",
                {"name": name, "secret": secret[2]},
            )
        if value is not None and "\0" in value:
            raise ValueError(f"the value of {name} holds a NUL character, which no environment can")
    return variables


def _refuse_secrets(words: tuple[str, ...]) -> tuple[str, ...]:
    secret = _first_secret(" ".join(words))
    if secret:
        raise PydanticCustomError(
            SECRET_VALUE,
            "{name} looks like a secret, and settings are recorded; expected its variable as null in "
            "`env` of a pool, and set in the shell that starts tune",
            {"name": secret[2]},
        )
    return words


CommandWords = Annotated[tuple[str, ...], AfterValidator(_refuse_secrets)]
"""Words of a command, or its options, none of which is a secret by the name before it."""

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
