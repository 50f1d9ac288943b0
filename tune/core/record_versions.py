"""Recognise records that another version of tune wrote, by their schema number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tune.errors import ConfigurationError


def other_version_error(path: Path, content: bytes, kind: type[BaseModel]) -> ConfigurationError | None:
    """Return the error for a record whose schema number is not that of `kind`.

    Returns None where `kind` has no schema number, or `content` has none or the expected one: then the record
    is damaged rather than of another version.
    """
    field = kind.model_fields.get("schema_")
    record = _parsed(content)
    found = record.get("schema")
    if field is None or not isinstance(found, int) or found == field.default:
        return None
    relative = "an earlier" if found < field.default else "a later"
    return ConfigurationError(
        f"{path}: written by {_writer(record) or f'{relative} version of tune'} in schema {found}; this "
        f"version reads schema {field.default}. Nothing was changed. Read it with the version that wrote it, "
        "or give this command a study of its own (study.name=NAME, or runs_dir=DIR)."
    )


def _parsed(content: bytes) -> dict[str, Any]:
    """Return the JSON object in `content`; an empty one where it holds none."""
    try:
        record = json.loads(content)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _writer(record: dict[str, Any]) -> str | None:
    """Return the version of tune that wrote a record, if the record names it."""
    for origin in (record, record.get("provenance")):
        versions = origin.get("versions") if isinstance(origin, dict) else None
        if isinstance(versions, dict) and versions.get("tune"):
            return f"tune {versions['tune']}"
    return None
