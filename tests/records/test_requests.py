from dataclasses import fields, replace

import numpy as np
import pytest
from support.request_logs import make_log, with_stages

from tune.errors import ConfigurationError, ResumableError
from tune.records.requests import RequestLog, read_requests, write_requests


def arrays(log: RequestLog) -> dict[str, np.ndarray]:
    parts = [log, log.stages, log.pools]
    return {
        f.name: getattr(part, f.name)
        for part in parts
        if part
        for f in fields(part)
        if f.name not in ("stages", "pools") and getattr(part, f.name) is not None
    }


def with_front_end(log: RequestLog) -> RequestLog:
    """Return marks with those of the frontend: 1 ms on the way in, none on the way out."""
    queued, made = log.scheduled_ns + 1_000_000, log.first_token_ns
    return replace(log, stages=replace(log.stages, prefill_queued_ns=queued, first_made_ns=made))


@pytest.mark.parametrize(
    "log",
    [
        make_log(50),
        replace(make_log(50), began_at_s=1795451493.25),
        replace(make_log(50), sent_ns=make_log(50).scheduled_ns + 1_000, client_busy_frac=0.25),
        with_stages(make_log(50)),
        with_front_end(with_stages(make_log(50))),
    ],
    ids=["client", "epoch", "sent", "stages", "frontend"],
)
def test_written_record_equals_the_one_read(log, tmp_path):
    write_requests(tmp_path / "requests.npz", log)
    read = read_requests(tmp_path / "requests.npz")
    assert arrays(read).keys() == arrays(log).keys()
    for name, array in arrays(log).items():
        np.testing.assert_array_equal(arrays(read)[name], array, strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["requests.npz"]


def damaged(tmp_path, kind):
    path = tmp_path / "requests.npz"
    log = with_stages(make_log(50))
    write_requests(path, log)
    kept = arrays(log)
    match kind:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "torn":
            path.write_bytes(path.read_bytes()[:-300])
        case "text":
            path.write_text("not an archive")
        case "two epochs":
            np.savez(path, **kept, began_at_s=np.array([1.0, 2.0]))
        case "lacks an array":
            del kept["done_ns"]
            np.savez(path, **kept)
        case "lacks a stage":
            del kept["decode_start_ns"]
            np.savez(path, **kept)
        case "uneven":
            np.savez(path, **kept | {"done_ns": kept["done_ns"][:-1]})
        case "uneven stages":
            np.savez(path, **kept | {"kv_arrived_ns": kept["kv_arrived_ns"][:-1]})
        case "uneven frontend":
            np.savez(path, **kept | {"first_made_ns": kept["kv_arrived_ns"][:-1]})
        case "pickled":
            np.savez(path, **kept | {"error": np.array([None] * 50, dtype=object)}, allow_pickle=True)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "empty",
        "torn",
        "text",
        "two epochs",
        "lacks an array",
        "lacks a stage",
        "uneven",
        "uneven stages",
        "uneven frontend",
        "pickled",
    ],
)
def test_damaged_record_error_says_to_run_again(kind, tmp_path):
    path = damaged(tmp_path, kind)
    with pytest.raises(ResumableError) as raised:
        read_requests(path)
    assert str(raised.value).startswith(f"{path}: not a readable request record (")
    assert "Move the attempt's folder (raw/N) away" in str(raised.value)


def test_unwritable_folder_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_requests(tmp_path / "file" / "requests.npz", make_log(5))
