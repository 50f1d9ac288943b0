"""Test that keys and values are checked against a schema as large and as nested as TensorRT-LLM's.

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

ARGS = "tensorrt_llm.llmapi.llm_args"
FORMS: list[tuple[str, list[str], str, list[Any], list[Any]]] = [
    ("<class 'int'>", [], "", [8, None], ["8", 0.5, True]),
    ("<class 'bool'>", [], "", [True, None], [1, "yes"]),
    ("<class 'float'>", [], "", [0.5, 1], ["0.5", True]),
    ("Optional[int]", [], "", [8], ["8"]),
    ("Optional[bool]", [], "", [False], [0]),
    ("Optional[float]", [], "", [1], [True]),
    ("Optional[Annotated[int, Gt(gt=0)]]", [], "", [8], [0.5]),
    ("Optional[Annotated[int, Ge(ge=0)]]", [], "", [0], ["0"]),
    ("List[int]", [], "", [[4, 128], []], [3, "x", ["4"], [[4]], {"a": 4}]),
    ("Optional[List[int]]", [], "", [[1, 2], None], ["x", 3, [0.5], [True]]),
    ("Optional[List[float]]", [], "", [[0.5, 1], []], ["x", 0.5, ["0.5"]]),
    ("Optional[List[List[int]]]", [], "", [[[1], [2]]], ["x", [1], [["1"]]]),
    ("Optional[List[Annotated[int, Gt(gt=0)]]]", [], "", [[1, 2]], ["x", 1, ["1"]]),
    ("Optional[Set[int]]", [], "", [[1, 2]], [1, "x", ["1"]]),
    ("Union[int, float, NoneType]", [], "", [1, 0.5, None], ["x", True, [1]]),
    ("Union[bool, Literal['auto']]", ["auto"], "", [True, False, "auto"], ["own", 3, ["auto"]]),
    (f"Union[str, {ARGS}.LoadFormat]", ["auto", "dummy"], "allowlist", ["dummy", "own"], [3, True, ["auto"]]),
    ("<class 'str'>", ["fp8", "auto"], "allowlist", ["fp8", "own"], [8, True, ["fp8"]]),
    ("Optional[str]", ["lmcache"], "allowlist", ["lmcache", "own", None], [8, True, ["lmcache"]]),
    ("Literal['AUTO']", ["AUTO", "MTP"], "", ["MTP"], ["mtp", 3, ["MTP"]]),
    ("Literal['one']", ["one", "two"], "allowlist", ["two", "own"], [3, ["two"]]),
    ("Optional[Literal['UCX', 'NIXL']]", ["UCX", "NIXL"], "", ["UCX", None], ["ucx", True, ["UCX"]]),
    ("<enum 'CapacitySchedulerPolicy'>", ["MAX_UTILIZATION"], "", ["MAX_UTILIZATION"], ["MAX", 3]),
    (
        "<enum 'PrefillCudaGraphBackend'>",
        ["piecewise"],
        "allowlist",
        ["piecewise", "own"],
        [3, ["piecewise"]],
    ),
    (f"Optional[{ARGS}.ContextChunkingPolicy]", ["FORCE_CHUNK"], "", ["FORCE_CHUNK", None], ["FORCE", 3]),
    (
        "List[Literal['cutlass', 'marlin']]",
        ["cutlass", "marlin"],
        "",
        [["marlin"]],
        [["marlin", "x"], "marlin"],
    ),
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
    (fault,) = check_keys(tree(path, data.draw(st.sampled_from(refused))), schema)
    assert (fault.path, fault.is_certain) == (path, True)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("Optional[List[Annotated[int, Gt(gt=0)]]]", "a list, each item a value of type int"),
        ("Union[int, float, NoneType]", "a value of type int or a value of type float"),
        ("Union[bool, Literal['auto']]", "a value of type bool or one of auto"),
        (f"Union[str, {ARGS}.LoadFormat]", "a text, such as one of auto, dummy"),
        ("List[Literal['cutlass', 'marlin']]", "a list, each item one of cutlass, marlin"),
        (f"Optional[{ARGS}.ContextChunkingPolicy]", "one of FORCE_CHUNK"),
    ],
)
def test_a_refused_value_is_named_with_what_is_taken(annotation: str, words: str, schema: KeySchema) -> None:
    path = next(path for path, form in ARGUMENTS.items() if form[0] == annotation)
    (fault,) = check_keys(tree(path, {"a": 1}), schema)
    assert (fault.found, fault.expected) == ("{'a': 1}", words)


@pytest.mark.parametrize("form", FORMS, ids=[form for form, *_ in FORMS])
def test_every_value_of_a_form_is_taken_or_refused(
    form: tuple[str, list[str], str, list[Any], list[Any]], schema: KeySchema
) -> None:
    path = next(path for path, other in ARGUMENTS.items() if other is form)
    assert not [value for value in form[3] if list(check_keys(tree(path, value), schema))]
    assert not [value for value in form[4] if not list(check_keys(tree(path, value), schema))]


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
