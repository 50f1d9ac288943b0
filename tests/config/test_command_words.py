"""Test the words of a command line: overrides, the action, folders of configuration, and what is neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.config.command_words import CommandWords, split_words
from tune.errors import ConfigurationError
from tune.spec.settings import ACTION_NAMES

PATHS = ("action", "load.target_qps", "load.seed", "study.seed", "study.n_trials", "split.prefill_workers")
OPTIONS = {"split": ["14p4d"], "hardware": ["gb300_nvl72"], "sweep": ["pd_split"]}


def split(*words: str) -> CommandWords:
    return split_words(words, lambda: PATHS, lambda: OPTIONS)


def test_word_without_equals_is_the_action() -> None:
    expected = CommandWords(("action=report", "study.name=x"))
    assert split("report", "study.name=x") == expected
    assert split("--config-dir", "mine", "report", "~load") == CommandWords(
        ("action=report", "~load"), ("mine",)
    )


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("flag", [("--config-dir", "mine"), ("--config-dir=mine",), ("-cd", "mine")])
def test_folder_of_configuration_may_stand_anywhere(flag: tuple[str, ...], place: int) -> None:
    words = ["report", "study.name=x", "load.target_qps=14"]
    parts = split(*words[:place], *flag, *words[place:])
    assert parts == CommandWords(("action=report", "study.name=x", "load.target_qps=14"), ("mine",))


def test_flags_keep_their_values() -> None:
    words = split("--cfg", "job", "-cd=mine", "plan", "--resolve")
    assert words == CommandWords(("action=plan",), ("mine",), ("--cfg", "job", "--resolve"))
    typed = ["--cfg", "job", "--resolve", "--config-dir", "mine", "action=plan"]
    assert words.for_hydra == [*typed, "hydra/help=tune", "hydra/hydra_help=default"]


def test_completion_reaches_hydra_as_typed() -> None:
    assert split("-sc", "query=bash").for_hydra == ["-sc", "query=bash"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["load.target_qps", "=", "14"],
            "load.target_qps = 14: found a blank beside =; expected load.target_qps=14",
        ),
        (["load.target_qps", "=14"], "expected load.target_qps=14"),
        (["load.target_qps=", "14"], "expected load.target_qps=14"),
        (["reprot"], "Did you mean report? Actions: run, plan"),
        (["13p5d"], "Did you mean split.prefill_workers=13 split.decode_workers=5?"),
        (["14p4d"], "Did you mean split=14p4d?"),
        (["18A"], "Did you mean split=aggregated split.aggregated_workers=18?"),
        (["gb300_nvl72"], "Did you mean hardware=gb300_nvl72?"),
        (["pd_split"], "Did you mean +sweep=pd_split?"),
        (["load.target_qps"], "Did you mean load.target_qps=VALUE?"),
        (["seed"], "Did you mean load.seed=VALUE or study.seed=VALUE?"),
        (["xyzzy"], "xyzzy: found a word without =; expected an action or path=value. Actions:"),
        (["report", "action=status"], "found action=report and action=status"),
        (["report", "status"], "found action=report and action=status"),
        (["--config-dir"], "expected a folder after it"),
        (["--config-dir=a", "-cd", "b"], "found a, b; expected one folder"),
        (["-m"], "+sweep=NAME"),
    ],
)
def test_other_words_are_explained(words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        split(*words)
    assert message in str(caught.value)


@given(st.lists(st.text(max_size=12), max_size=4))
def test_any_words_are_split_or_refused(words: list[str]) -> None:
    try:
        parts = split(*words)
    except ConfigurationError:
        return
    kept = {*parts.for_hydra, *(word.removeprefix("action=") for word in parts.overrides)}
    assert kept >= {word for word in words if not word.startswith(("--config-dir", "-cd"))}
    assert all("=" in word or word.startswith("~") for word in parts.overrides)


@pytest.mark.parametrize("action", ACTION_NAMES)
def test_every_action_is_a_word(action: str) -> None:
    assert split(action).overrides == (f"action={action}",)
