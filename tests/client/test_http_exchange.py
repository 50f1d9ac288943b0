from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.client.http_exchange import Chunked, Counted, UntilClosed, read_head


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=300)),
    cuts=st.lists(st.integers(0, 3000)),
    trailer=st.sampled_from([b"\r\n", b"Server-Timing: x\r\n\r\n", b""]),
    extension=st.sampled_from([b"", b";name=value", b" "]),
)
def test_chunks_are_joined_wherever_reads_split_them(
    pieces: list[bytes], cuts: list[int], trailer: bytes, extension: bytes
) -> None:
    stream = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    ends = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    body = Chunked()
    assert b"".join(body.feed(stream[a:b]) for a, b in pairwise(ends)) == b"".join(pieces)
    assert body.whole is False
    assert body.feed(b"000\r\n" + trailer) == b""
    assert body.whole is True
    assert body.feed(b"5\r\nafter\r\n") == b""


@pytest.mark.parametrize(
    "size", [b"", b"-5", b"0x5", b"+5", b"1_0", b"5 5", b"f" * 16, b"<html>", b"1" * 2000]
)
def test_a_chunk_without_a_size_is_refused(size: bytes) -> None:
    with pytest.raises(ValueError, match="a chunk without a size"):
        Chunked().feed(size + b"\r\n")


def test_a_size_that_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="a chunk without a size"):
        Chunked().feed(b"1" * 2000)


@given(st.binary(max_size=300))
def test_noise_as_chunks_is_refused_or_kept_short(noise: bytes) -> None:
    body = Chunked()
    try:
        taken = body.feed(noise)
    except ValueError:
        return
    assert len(taken) <= len(noise)


@given(data=st.binary(max_size=50), length=st.integers(0, 60), cut=st.integers(0, 50))
def test_a_counted_body_ends_with_its_count(data: bytes, length: int, cut: int) -> None:
    body = Counted(length)
    assert body.feed(data[:cut]) + body.feed(data[cut:]) == data[:length]
    assert body.whole == (len(data) >= length)


@pytest.mark.parametrize(
    ("head", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", 200, Chunked),
        (b"HTTP/1.1 200\r\ntransfer-encoding:Chunked\r\nContent-Length: 7", 200, Chunked),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12", 503, Counted),
        (b"HTTP/1.0 200 OK\r\nServer: x", 200, UntilClosed),
    ],
)
def test_heads(head: bytes, status: int, body: type) -> None:
    found, kind = read_head(head)
    assert (found, type(kind)) == (status, body)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/2 200",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1",
        b"ICY 200 OK",
        b"HTTP/1.1 200\r\nContent-Length: -1",
        b"HTTP/1.1 200\r\nContent-Length: 1, 2",
        b"HTTP/1.1 200\r\nContent-Length: " + b"9" * 30,
    ],
)
def test_what_is_no_head_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"no HTTP/1\.1|Content-Length is"):
        read_head(head)
