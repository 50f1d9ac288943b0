from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.client.http_exchange import ResponseParser

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
OPEN_ENDED = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"


def parse(*pieces: bytes) -> tuple[ResponseParser, bytes]:
    """Return the parser after all `pieces`, and the body that it found."""
    parser = ResponseParser()
    return parser, b"".join(parser.feed(piece) for piece in pieces)


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=300)),
    cuts=st.lists(st.integers(0, 3000)),
    trailer=st.sampled_from([b"\r\n", b"Server-Timing: x\r\n\r\n"]),
    extension=st.sampled_from([b"", b";name=value"]),
    interim=st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]),
)
def test_chunks_are_joined_wherever_reads_split_them(
    pieces: list[bytes], cuts: list[int], trailer: bytes, extension: bytes, interim: bytes
) -> None:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    stream = interim + CHUNKED + body + b"000\r\n"
    ends = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    parser, found = parse(*(stream[a:b] for a, b in pairwise(ends)))
    assert (parser.status, found, parser.complete) == (200, b"".join(pieces), False)
    assert not parser.ends_with_connection
    assert parser.feed(trailer + b"HTTP/1.1 500 Oops\r\n") == b""
    assert (parser.status, parser.complete) == (200, True)
    assert parser.feed(b"5\r\nafter\r\n") == b""


@pytest.mark.parametrize(
    "size", [b"", b"-5", b"0x5", b"+5", b"1_0", b"5 5", b"f" * 17, b"<html>", b"1" * 2000]
)
def test_chunk_without_a_size_is_refused(size: bytes) -> None:
    with pytest.raises(ValueError, match=r"[Cc]hunk size"):
        parse(CHUNKED, size + b"\r\n")


@given(st.binary(max_size=300))
def test_noise_as_chunks_is_refused_or_kept_short(noise: bytes) -> None:
    try:
        _, body = parse(CHUNKED, noise)
    except ValueError:
        return
    assert len(body) <= len(noise)


@given(data=st.binary(max_size=50), length=st.integers(0, 60), cut=st.integers(0, 50))
def test_counted_body_ends_with_its_count(data: bytes, length: int, cut: int) -> None:
    parser, body = parse(COUNTED % length, data[:cut], data[cut:])
    assert body == data[:length]
    assert parser.complete == (len(data) >= length)
    assert not parser.ends_with_connection


@given(data=st.binary(max_size=50), cut=st.integers(0, 50))
def test_body_without_a_length_ends_with_the_connection(data: bytes, cut: int) -> None:
    parser, body = parse(OPEN_ENDED + data[:cut], data[cut:])
    assert (body, parser.complete, parser.ends_with_connection) == (data, False, True)


@pytest.mark.parametrize(
    ("head", "status", "complete"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", 200, False),
        (b"HTTP/1.1 200\r\ntransfer-encoding:Chunked", 200, False),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12", 503, False),
        (b"HTTP/1.1 301 Moved\r\nContent-Length: 0", 301, True),
        (b"HTTP/1.1 204 No Content", 204, True),
        (b"HTTP/1.0 200 OK\r\nServer: x", 200, False),
    ],
)
def test_head_gives_the_status_and_the_end(head: bytes, status: int, complete: bool) -> None:
    parser, body = parse(head + b"\r\n\r\n")
    assert (parser.status, parser.complete, body) == (status, complete, b"")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200",
        b"HTTP/2.0 200 OK",
        b"HTTP/0.9 200 OK",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1",
        b"ICY 200 OK",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c",
        b"HTTP/1.1 200\r\nContent-Length: -1",
        b"HTTP/1.1 200\r\nContent-Length: 1, 2",
        b"HTTP/1.1 200\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200\r\nContent-Length: 7\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200\r\nContent-Length: " + b"9" * 30,
    ],
)
def test_malformed_head_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(head + b"\r\n\r\n")


def test_head_that_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="a head of more than 64 KiB"):
        parse(b"HTTP/1.1 200 OK\r\nX: ", *[b"y" * 1000] * 66)
