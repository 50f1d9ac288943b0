from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.spec.environment import Environment, given_values, inherited_names, looks_secret
from tune.spec.trial import TrialSpec

READ: TypeAdapter[dict[str, str | None]] = TypeAdapter(Environment)

PUBLIC_NAMES = ("UCX_TLS", "NCCL_GRAPH_MIXING_SUPPORT", "TRTLLM_ENABLE_PDL", "TOKENIZERS_PARALLELISM", "KEYS")
SECRET_NAMES = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "openai_api_key", "DB_PASSWORD", "TOKEN")

VALUES = st.none() | st.integers() | st.text(st.characters(exclude_characters="\0"))


@given(st.dictionaries(st.sampled_from(PUBLIC_NAMES), VALUES))
def test_every_variable_is_given_or_inherited(written: dict[str, str | int | None]) -> None:
    variables = READ.validate_python(written)
    given_text = {name: str(value) for name, value in written.items() if value is not None}
    assert given_values(variables) == given_text
    assert set(inherited_names(variables)) == written.keys() - given_text.keys()
    assert READ.validate_python(variables) == variables


def test_names_tell_secrets() -> None:
    assert [name for name in (*PUBLIC_NAMES, *SECRET_NAMES) if looks_secret(name)] == list(SECRET_NAMES)


REFUSED = [
    ({"A B": "1"}, "no name"),
    ({"1A": "x"}, "no name"),
    ({"A": True}, "string"),
    ({"A": "x\0"}, "NUL"),
]


@pytest.mark.parametrize(("written", "words"), REFUSED)
def test_what_no_environment_holds_is_refused(written: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        READ.validate_python(written)


def test_a_secret_that_is_written_out_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigurationError) as refused:
        compose_overrides(["+prefill.env.HF_TOKEN=hf_abcdef"])
    assert "prefill.env: HF_TOKEN looks like a secret" in str(refused.value)
    assert "hf_abcdef" not in str(refused.value)


def test_variables_are_part_of_a_trial_and_an_empty_environment_is_not(
    make_spec: Callable[..., TrialSpec],
) -> None:
    plain, quick = make_spec(), make_spec(prefill__env={"UCX_TLS": "rc"})
    assert '"env"' not in plain.canonical()
    assert len({plain.trial_id, quick.trial_id, make_spec(decode__env={"UCX_TLS": "rc"}).trial_id}) == 3
    assert TrialSpec.model_validate_json(quick.model_dump_json()) == quick
