import json
from pathlib import Path
from typing import Any

import pytest
from right_client import DATASET, RIGHT, make_settings

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
        ("target_qps", 0),
        ("target_qps", "15.75"),
        ("target_qps", True),
        ("min_duration_s", -1.0),
        ("min_queries", 0),
        ("min_queries", 100.5),
        ("concatenate_permutation", "yes"),
        ("schedule_seed", "MLPERF"),
        ("schedule_seed", -1),
        ("schedule_seed", 2**64),
        ("length_seed", None),
        ("ttft_limit_s", 0.0),
        ("tpot_limit_s", "0.08"),
        ("max_output_tokens", 0),
        ("samples", 41),
        ("client_concurrency", 0),
        ("request_timeout_s", None),
        ("response_timeout_s", 0),
        ("dataset_path", 3),
        ("dataset", {**DATASET, "samples": 0}),
        ("dataset", "mlperf"),
        ("retries", 3),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "client.json"
    path.write_text(json.dumps({**RIGHT, key: value}))
    with pytest.raises(FixCommand, match=key) as refused:
        read_settings(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("key", RIGHT)
def test_no_key_may_be_missing(tmp_path: Path, key: str) -> None:
    path = tmp_path / "client.json"
    path.write_text(json.dumps({name: value for name, value in RIGHT.items() if name != key}))
    with pytest.raises(FixCommand, match=rf"{key}: Field required"):
        read_settings(path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"target_qps": NaN}', "\x00", '"mlperf"'])
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


def test_the_path_on_this_node_goes_first() -> None:
    both = make_settings(dataset_path="/here.csv", dataset={**DATASET, "path": "/there.csv"})
    assert both.lengths.path == "/here.csv"
    assert make_settings(dataset={**DATASET, "path": "/there.csv"}).lengths.path == "/there.csv"


def test_a_part_of_a_millisecond_is_rounded_up() -> None:
    assert make_settings(min_duration_s=0.0101).min_duration_ms == 11
