"""Name file and line where YAML cannot be read."""

from __future__ import annotations

import yaml


def explain_yaml(error: yaml.YAMLError) -> str:
    """Return what a YAML file has where its reader stops, with file and line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    if "\\t" in problem:
        problem = "found a tab; expected blanks"
    where = f"{mark.name.removeprefix('file://')}, line {mark.line + 1}" if mark else "a YAML file"
    return f"{where}: {problem}. Expected YAML, one `key: value` a line; nothing was run."
