from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from support.composed import changed, composed

from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.spec.environment import Environment, given_values, inherited_names, looks_secret, without_secrets
from tune.spec.trial import TrialSpec

READ: TypeAdapter[dict[str, str | None]] = TypeAdapter(Environment)

PUBLIC_NAMES = (
    *("UCX_TLS", "UCX_IB_PKEY", "NCCL_GRAPH_MIXING_SUPPORT", "NCCL_PAT_ENABLE", "TRTLLM_ENABLE_PDL"),
    *("TOKENIZERS_PARALLELISM", "DYN_TOKENIZER", "DYN_TOKEN_IDS_AS_BYTES", "MAX_TOKENS", "eos_token", "KEYS"),
    *("DYN_PREFILL_MAX_NEW_TOKEN_SAMPLES", "DYN_SGL_DISAGG_CONFIG_KEY", "XKB_KEYBOARD", "MONKEY", "PWD"),
    *("VLLM_ENABLE_TOWER_CONNECTOR_LORA_RUNTIME_KEY", "NUM_FORWARD_PASS", "BYPASS", "OLDPWD", "AUTHOR"),
)
SECRET_NAMES = (
    *("HF_TOKEN", "HF_TOKEN_2", "TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "openai_api_key"),
    *("DB_PASSWORD", "PGPASSWORD", "MYSQL_PWD", "DB_PASS", "SSHPASS", "GITHUB_PAT", "WANDB_KEY"),
    *("ENCRYPTION_KEY", "ENCRYPTION_KEY_V2", "AUTHORIZATION", "REGISTRY_AUTH", "apiKey", "hf-token"),
)

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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("env HF_TOKEN=hf_5 python3", "env HF_TOKEN=set"),
        ("export ALL,DB_PASS=5; run", "export ALL,DB_PASS=set"),
        ("serve --api-key sk-5 --port 1", "serve --api-key set"),
        ("[--api-key, sk-5]", "[--api-key, set"),
        ("['--api-key', 'sk-5']", "['--api-key', set"),
        ('{"api_key": "sk-5"}', '{"api_key": set'),
        ("Authorization: Bearer 5", "Authorization: set"),
        ("--max-num-tokens 5 --token", "--max-num-tokens 5 --token"),
        ("--container-env=HF_TOKEN", "--container-env=HF_TOKEN"),
        ("a token is a word", "a token is a word"),
    ],
)
def test_a_text_ends_where_a_secret_begins(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


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


@pytest.mark.parametrize("group", ["prefill.env", "stack.env", "cluster.srun_env"])
@pytest.mark.parametrize("text", ["export HF_TOKEN=hush5", "serve --api-key hush5", '{"password": "hush5"}'])
def test_a_secret_in_the_text_of_a_variable_is_refused_without_repeating_it(group: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compose_overrides(["cluster=slurm", f"+{group}.SETUP='{text}'"])
    assert f"{group}: SETUP has " in str(refused.value)
    assert "looks like a secret" in str(refused.value)
    assert "hush5" not in str(refused.value)


KEYS_WITH_SECRETS = [
    ("decode", "extra.setup='serve --api-key hf_abcdef'", "extra.setup: api-key"),
    ("decode", "extra.words=[--api-key,hf_abcdef]", "extra.words: api-key"),
    ("prefill", "kv_cache_config.store={url: 'password=hf_abcdef'}", "kv_cache_config.store.url: password"),
    ("prefill", "extra.env_overrides={HF_TOKEN: hf_abcdef}", "extra.env_overrides.HF_TOKEN"),
    ("prefill", "kv_cache_config.store=[{password: hf_abcdef}]", "kv_cache_config.store.password"),
    ("decode", "extra.api_key=[hf_abcdef]", "extra.api_key"),
]


@pytest.mark.parametrize(("pool", "setting", "path"), KEYS_WITH_SECRETS)
def test_a_secret_among_the_keys_of_an_engine_is_refused_without_repeating_it(
    pool: str, setting: str, path: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compose_overrides([f"+{pool}.{setting}"])
    assert f"{pool}: {path} looks like a secret" in str(refused.value)
    assert "`env` of this pool" in str(refused.value)
    assert "hf_abcdef" not in str(refused.value)


def test_a_secret_before_a_command_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValidationError) as refused:
        changed(composed("cluster=slurm"), "cluster.command_prefix.decode=[env,'HF_TOKEN=s3cr3t']")
    (error,) = refused.value.errors()
    assert error["msg"].startswith("HF_TOKEN looks like a secret")
    assert "s3cr3t" not in error["msg"]


def test_keys_of_an_engine_that_hold_no_text_are_no_secrets(make_spec: Callable[..., TrialSpec]) -> None:
    extra = {"pass": 1, "key": True, "tokenizer": "x", "api_key": None, "draft": {"eos_token": "</s>"}}
    assert make_spec(prefill__extra=extra).model_dump()["prefill"]["extra"] == extra


def test_variables_are_part_of_a_trial_and_an_empty_environment_is_not(
    make_spec: Callable[..., TrialSpec],
) -> None:
    plain, quick = make_spec(), make_spec(prefill__env={"UCX_TLS": "rc"})
    assert '"env"' not in plain.canonical()
    assert len({plain.trial_id, quick.trial_id, make_spec(decode__env={"UCX_TLS": "rc"}).trial_id}) == 3
    assert TrialSpec.model_validate_json(quick.model_dump_json()) == quick
