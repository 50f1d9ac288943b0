"""Keys and values are checked against a list of arguments as large and as nested as TensorRT-LLM's own.

The rows are generated: every key that is known here, below groups of groups, with every form of annotation
that TensorRT-LLM's llm_args_golden_manifest.json (0004396, 60 kB) has. The file itself was read, not copied.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.engines.trtllm.key_schema import KeySchema, check_keys, read_key_schema
from tune.engines.trtllm.known_keys import KNOWN_KEYS

FORMS: list[tuple[str, list[str], str, list[Any], list[Any]]] = [
    ("<class 'int'>", [], "", [8, None], ["8", 0.5, True]),
    ("<class 'bool'>", [], "", [True, None], [1, "yes"]),
    ("<class 'float'>", [], "", [0.5, 1], ["0.5", True]),
    ("Optional[int]", [], "", [8], ["8"]),
    ("Optional[bool]", [], "", [False], [0]),
    ("Optional[float]", [], "", [1], [True]),
    ("Optional[Annotated[int, Gt(gt=0)]]", [], "", [8], [0.5]),
    ("Optional[Annotated[int, Ge(ge=0)]]", [], "", [0], ["0"]),
    ("Optional[List[int]]", [], "", [[1, 2]], []),
    ("Optional[List[List[int]]]", [], "", [[[1], [2]]], []),
    ("Optional[List[Annotated[int, Gt(gt=0)]]]", [], "", [[1, 2]], []),
    ("Optional[Set[int]]", [], "", [[1, 2]], []),
    ("Union[int, float, NoneType]", [], "", [1, 0.5], []),
    ("Union[bool, Literal['auto']]", ["auto"], "", [True, False, "auto"], []),
    ("<class 'str'>", ["fp8", "auto"], "allowlist", ["fp8", "own"], []),
    ("Literal['AUTO']", ["AUTO", "MTP"], "", ["MTP"], ["mtp"]),
    ("Optional[Literal['UCX', 'NIXL']]", ["UCX", "NIXL"], "", ["UCX", None], ["ucx", True]),
    ("<enum 'CapacitySchedulerPolicy'>", ["MAX_UTILIZATION"], "", ["MAX_UTILIZATION"], ["MAX"]),
    ("List[Literal['cutlass', 'marlin']]", ["cutlass", "marlin"], "", [["marlin"]], [["marlin", "x"]]),
]
"""Annotation, allowed values and converter in the file; values that the engine takes, and that it refuses."""

GROUPS = ("", "cache_config.", "cache_config.block_reuse_options.", "decoding.draft_options.")
LEAVES = [
    f"{group}{key}"
    for group in GROUPS
    for key in sorted(set().union(*KNOWN_KEYS.values()))
    if "config" not in key
]
ARGUMENTS = {path: FORMS[index % len(FORMS)] for index, path in enumerate(LEAVES)}
paths = st.sampled_from(LEAVES)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> KeySchema:
    rows = [
        {"allowed_values": allowed, "annotation": form, "converter": converter, "kind": "value", "path": path}
        for path, (form, allowed, converter, _, _) in ARGUMENTS.items()
    ]
    file = tmp_path_factory.mktemp("schema") / "llm_args_golden_manifest.json"
    file.write_text(json.dumps({"TorchLlmArgs": rows}, indent=2))
    assert file.stat().st_size > 60_000
    return read_key_schema(str(file), "nested")


def tree(path: str, value: Any) -> dict[str, Any]:
    """Return the YAML that has one value."""
    *groups, key = path.split(".")
    content: dict[str, Any] = {key: value}
    for group in reversed(groups):
        content = {group: content}
    return content


@given(path=paths, data=st.data())
def test_a_value_passes_where_the_engine_takes_it(path: str, data: st.DataObject, schema: KeySchema) -> None:
    _, _, _, taken, refused = ARGUMENTS[path]
    assert not list(check_keys(tree(path, data.draw(st.sampled_from(taken))), schema))
    if refused:
        (fault,) = check_keys(tree(path, data.draw(st.sampled_from(refused))), schema)
        assert (fault.path, fault.is_certain) == (path, True)


@given(path=paths, data=st.data())
def test_a_misspelt_key_at_any_depth_is_named_with_the_right_one(
    path: str, data: st.DataObject, schema: KeySchema
) -> None:
    group, _, key = path.rpartition(".")
    known = schema.keys[group]
    left_out = data.draw(st.integers(0, len(key) - 1))
    misspelt = key[:left_out] + key[left_out + 1 :]
    wrong = f"{group}.{misspelt}".lstrip(".")
    faults = list(check_keys(tree(wrong, 1), schema)) if misspelt not in known else []
    for fault in faults:
        assert fault.path == wrong
        near = fault.expected.partition(",")[0]
        assert near in known or not fault.is_certain
    if len(key) > 6 and misspelt not in known:
        assert [fault.is_certain for fault in faults] == [True]


def test_the_whole_list_passes_at_once(schema: KeySchema) -> None:
    whole: dict[str, Any] = {}
    for path, (_, _, _, taken, _) in ARGUMENTS.items():
        *groups, key = path.split(".")
        node = whole
        for group in groups:
            node = node.setdefault(group, {})
        node[key] = taken[0]
    assert not list(check_keys(whole, schema))
    assert len(schema.arguments) == len(LEAVES)
