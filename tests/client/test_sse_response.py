import json
import re
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.client.sse_response import StreamedResponse

USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"


def delta(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "text": text}], "usage": None}).encode() + b"\n\n"


WHOLE = (
    b": hello\n\nid: 1\nevent: completion\nretry: 10\n"
    + delta("") + delta("a\nb") + delta('"error" "usage"') + USAGE + DONE
)  # fmt: skip


def read(*pieces: bytes) -> StreamedResponse:
    response = StreamedResponse()
    for index, piece in enumerate(pieces):
        response.feed(piece, 100 + index)
    response.close()
    return response


def test_complete_answer_has_times_and_tokens() -> None:
    response = read(delta(""), delta("a"), delta("b"), USAGE, DONE)
    assert (response.first_token_ns, response.done_ns, response.output_tokens, response.error) == (
        101,
        104,
        7,
        "",
    )


@pytest.mark.slow
@given(cuts=st.lists(st.integers(0, len(WHOLE))), ending=st.sampled_from([b"\n", b"\r\n"]))
def test_split_reads_change_only_the_times(cuts: list[int], ending: bytes) -> None:
    stream = WHOLE.replace(b"\n", ending)
    pieces = [stream[a:b] for a, b in pairwise([0, *sorted(cuts), len(stream)])]
    response = read(*pieces)
    received_bytes = list(accumulate(len(piece) for piece in pieces))
    first_ends = stream.index(b"\n", stream.index(b"a\\nb")) + 1
    done_ends = len(stream) - len(ending)
    assert response.first_token_ns == 100 + next(
        index for index, total in enumerate(received_bytes) if total >= first_ends
    )
    assert response.done_ns == 100 + next(
        index for index, total in enumerate(received_bytes) if total >= done_ends
    )
    assert (response.output_tokens, response.error) == (7, "")


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([], "cut: the stream ended before its first token"),
        ([b""], "cut"),
        ([delta("")], "cut: the stream ended before its first token"),
        ([delta("a"), USAGE], "cut: the stream ended after its first token"),
        ([delta("a"), USAGE, DONE[:-3]], "cut"),
        ([USAGE, DONE], "empty"),
        ([DONE], "empty"),
        ([delta(""), USAGE, DONE], "empty"),
        ([delta("a"), DONE], "no usage"),
        ([delta("a"), USAGE.replace(b"7", b"0"), DONE], "no tokens"),
        ([delta("a"), USAGE.replace(b"7", b"-7"), DONE], "no tokens"),
        ([delta("a"), USAGE.replace(b"7", b"true"), DONE], "no tokens"),
        ([delta("a"), USAGE.replace(b"7", b'"7"'), DONE], "no tokens"),
        ([delta("a"), USAGE.replace(b"7", b"7.5"), DONE], "no tokens"),
        ([delta("a"), USAGE.replace(b"completion", b"other"), DONE], "no tokens"),
        ([delta("a"), b'data: {"usage":7}\n', DONE], "no usage"),
        ([b"<html>\n"], "garbage: <html>"),
        ([b'{"choices":[]}\n'], "garbage"),
        ([delta("a"), b"data: {not json}\n"], "garbage: {not json}"),
        ([delta("a"), b"data: [1]\n", USAGE, DONE], "garbage"),
        ([delta("a"), b"data:\n", USAGE, DONE], "garbage"),
        ([delta("a"), b"data: \xff\xfe\n", USAGE, DONE], "garbage"),
        ([b"data: " + b"[" * 200_000 + b"\n"], "garbage"),
        ([b"x" * (1 << 20), b"x"], "garbage: a line of more"),
        (
            [delta("a"), b'data: {"error":{"message":"out of memory"}}\n', USAGE, DONE],
            "server: .*out of memory",
        ),
        ([b"event: error\n: out of memory\n\n", delta("a"), USAGE, DONE], "server: an error event"),
        (
            [b'data: {"choices":[{"text":"a","finish_reason":"error"}]}\n', USAGE, DONE],
            "server: .*finish_reason",
        ),
    ],
)
def test_broken_answer_has_an_error_and_no_tokens(pieces: list[bytes], error: str) -> None:
    response = read(*pieces)
    assert re.match(error, response.error)
    assert (response.done_ns, response.output_tokens) == (-1, 0)


@pytest.mark.parametrize(
    "choices", [None, {}, [], [None], ["a"], [{}], [{"text": None}], [{"text": 0}], [{"text": [1]}], "a"]
)
def test_malformed_choices_are_no_token(choices: object) -> None:
    assert read(b"data: " + json.dumps({"choices": choices}).encode() + b"\n").first_token_ns == -1


def chat(**fields: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": fields}]}).encode() + b"\n\n"


@pytest.mark.parametrize("name", ["content", "reasoning", "reasoning_content"])
def test_chat_counts_from_its_first_text(name: str) -> None:
    """The first events of a chat have a role or empty texts only."""
    role = chat(role="assistant", content="")
    empty = chat(**{name: ""}, tool_calls=[])
    response = read(role, empty, chat(**{name: "Hm"}), chat(content="a"), USAGE, DONE)
    assert (response.first_token_ns, response.done_ns, response.error) == (102, 105, "")


@given(st.binary(max_size=300), st.sampled_from([b"", delta("a"), delta("a") + USAGE]))
def test_noise_is_never_a_success(noise: bytes, before: bytes) -> None:
    response = read(before, noise.replace(b"[DONE]", b""))
    assert response.error
    assert response.done_ns == -1


def test_first_error_stays_and_later_data_is_ignored() -> None:
    response = read(delta("a"), b"junk\n", USAGE, DONE)
    response.fail("connection: lost")
    assert response.error == "garbage: junk"
    whole = read(delta("a"), USAGE, DONE + b"junk\n", b"more junk\n")
    whole.fail("connection: lost")
    assert (whole.error, whole.done_ns) == ("", 102)


def test_last_usage_counts() -> None:
    running = USAGE.replace(b"7", b"1")
    assert read(running, delta("a"), USAGE, DONE).output_tokens == 7
