import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from right_client import RIGHT, changed

from tune.client.settings import read_settings
from tune.errors import FixCommand


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("endpoint_url", "127.0.0.1:8000/v1"),
        ("endpoint_url", "ftp://head/v1"),
        ("endpoint_url", "http:///v1"),
        ("endpoint_url", "http://head:8000/v 1"),
        ("served_model_name", ""),
        ("served_model_name", None),
        ("load", "mlperf"),
        ("load__mode", "capacity"),
        ("load__target_qps", 0),
        ("load__target_qps", "15.75"),
        ("load__target_qps", True),
        ("load__min_duration_s", -1.0),
        ("load__min_queries", 0),
        ("load__min_queries", 100.5),
        ("load__concatenate_permutation", "yes"),
        ("load__seed", "MLPERF"),
        ("load__seed", -1),
        ("load__seed", 2**64),
        ("load__length_seed", None),
        ("load__client_concurrency", 0),
        ("load__request_timeout_s", None),
        ("load__response_timeout_s", 0),
        ("load__dataset", "mlperf"),
        ("load__dataset__samples", 0),
        ("load__dataset__path", 3),
        ("load__api", "responses"),
        ("load__api", None),
        ("load__retries", 3),
        ("slo", None),
        ("slo__ttft_p99_s", 0.0),
        ("slo__tpot_p99_s", "0.08"),
        ("target_qps", 15.75),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "client.json"
    path.write_text(json.dumps(changed(**{key: value})))
    with pytest.raises(FixCommand, match=key.replace("__", r"\.")) as refused:
        read_settings(path)
    assert str(path) in str(refused.value)


def keys(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in tree.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from keys(value, (*above, name))


DEFAULTS = {("load", "mode"), ("load", "api"), ("load", "dataset", "path"), ("load", "dataset", "sha256")}


@pytest.mark.parametrize("key", sorted({*keys(RIGHT)} - DEFAULTS), ids=".".join)
def test_no_key_may_be_missing(tmp_path: Path, key: tuple[str, ...]) -> None:
    tree = node = changed()
    for parent in key[:-1]:
        node = node[parent]
    del node[key[-1]]
    path = tmp_path / "client.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(FixCommand, match=rf"{'.'.join(key)}: Field required"):
        read_settings(path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"load": {"target_qps": NaN}}', "\x00", '"mlperf"'])
def test_what_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "client.json"
    path.write_text(text)
    with pytest.raises(FixCommand, match="finding"):
        read_settings(path)


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir])
def test_no_file_is_refused(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "client.json"
    make(path)
    with pytest.raises(FixCommand, match="cannot be read"):
        read_settings(path)
