import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.right_client import make_settings, right_with

from tune.client.client_settings import read_client_settings
from tune.errors import ConfigurationError

URL = "http://head:8000/v1"


def client_json(**changes: Any) -> dict[str, Any]:
    """Return what a plan writes: everything but the endpoint."""
    tree = right_with(**changes)
    if "endpoint_urls" not in changes:
        del tree["endpoint_urls"]
    return tree


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://head/v1", "http:///v1", "http://head:8000/v 1"])
def test_endpoint_must_be_an_http_url(tmp_path: Path, url: str) -> None:
    path = tmp_path / "client.json"
    path.write_text(json.dumps(client_json()))
    assert read_client_settings(path, [URL]) == make_settings(endpoint_urls=[URL])
    with pytest.raises(ConfigurationError, match="endpoint_urls"):
        read_client_settings(path, [URL, url])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("endpoint_urls", ["http://head:8000/v1"]),
        ("served_model_name", ""),
        ("served_model_name", None),
        ("load", "mlperf"),
        ("load__mode", "both"),
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
        ("load__shuffle_seed", None),
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
def test_wrong_value_is_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "client.json"
    path.write_text(json.dumps(client_json(**{key: value})))
    with pytest.raises(ConfigurationError, match=key.replace("__", r"\.")) as refused:
        read_client_settings(path, [URL])
    assert str(path) in str(refused.value)


def keys(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in tree.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from keys(value, (*above, name))


DEFAULTS = {("load", "mode"), ("load", "api"), ("load", "dataset", "path"), ("load", "dataset", "sha256")}


@pytest.mark.parametrize("key", sorted({*keys(client_json())} - DEFAULTS), ids=".".join)
def test_missing_key_is_refused_by_name(tmp_path: Path, key: tuple[str, ...]) -> None:
    tree = node = client_json()
    for parent in key[:-1]:
        node = node[parent]
    del node[key[-1]]
    path = tmp_path / "client.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(ConfigurationError, match=rf"{'.'.join(key)}: Field required"):
        read_client_settings(path, [URL])


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"load": {"target_qps": NaN}}', "\x00", '"mlperf"'])
def test_text_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "client.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="finding"):
        read_client_settings(path, [URL])


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir])
def test_unreadable_file_is_refused(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "client.json"
    make(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_client_settings(path, [URL])
