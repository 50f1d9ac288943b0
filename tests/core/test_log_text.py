"""Test how text of other programs is made plain."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.core.log_text import plain_text

ESCAPES = st.sampled_from(
    ["\x1b[2m", "\x1b[31;1mE\x1b[0m", "\x1b]0;title\x07", "\x1b[2J", "\x1bc", "\x9b1A", "\x1b"]
)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (  # a line of a vLLM 0.23 worker behind Dynamo 1.3.1, its output in a file
            "\x1b[2m2026-11-30T05:23:29.939785Z\x1b[0m \x1b[32m INFO\x1b[0m "
            "\x1b[2mmodel.__post_init__\x1b[0m\x1b[2m:\x1b[0m Resolved architecture: LlamaForCausalLM",
            "2026-11-30T05:23:29.939785Z  INFO model.__post_init__: Resolved architecture: LlamaForCausalLM",
        ),
        ("CUDA out\x1b[1m of\x1b[0m memory", "CUDA out of memory"),
        ("\x1b]0;root@gb01\x07done", "done"),
        ("\x1b]8;;file:///etc/passwd\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[H\x1b[8mhidden", "hidden"),
        ("bell\a, back\b, null\0, C1\x9b", "bell, back, null, C1"),
        ("\x1b]0;never ended\nCUDA out of memory\a", "0;never ended\nCUDA out of memory"),
        ("step\t1\r\nstep\t2\n", "step\t1\r\nstep\t2\n"),
        ("naïve ≤ 4.5 s", "naïve ≤ 4.5 s"),
    ],
)
def test_escape_sequences_and_control_characters_go(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@given(st.lists(st.one_of(st.text(), ESCAPES)).map("".join))
def test_nothing_is_left_that_a_terminal_acts_on(text: str) -> None:
    plain = plain_text(text)
    assert not [
        character
        for character in plain
        if unicodedata.category(character) == "Cc" and character not in "\t\n\r"
    ]
    assert plain_text(plain) == plain


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_plain_text_stays(text: str) -> None:
    assert plain_text(text) == text
