from __future__ import annotations

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from tune.deploy.shell import environment_text, quote_all, with_env
from tune.manifest.process import PLACEHOLDERS, bind_text

BOUND = {
    "HEAD_NODE": "gb 01",
    "HEAD_NODE_IP": "10.0.0.1",
    "NODE": "gb 02",
    "NODE_IP": "10.0.0.2",
    "PLAN_DIR": "/a 'plan'",
    "RAW_DIR": '/$(raw) "x"',
    "SCRATCH_DIR": "/tmp/a `b` * c",
}
PRINT = 'for word in "$@"; do printf \'%s\\0\' "$word"; done'

nasty = st.text(alphabet="ab '\"$(){}`\\;&|<>*?~#!\n\t=é-", max_size=12)
mixed = st.lists(nasty | st.sampled_from(PLACEHOLDERS), max_size=4).map("".join)


def bash(script: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", script], env=BOUND | {"PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(mixed, max_size=8))
def test_quoted_text_reaches_a_command_as_bound(texts: list[str]) -> None:
    assert bash(f"set -- {quote_all(texts)}\n{PRINT}") == [bind_text(text, BOUND) for text in texts]


@settings(max_examples=30, deadline=None)
@given(first=mixed, second=nasty)
def test_environment_lines_export_the_bound_value(first: str, second: str) -> None:
    lines = environment_text({"MODEL_PATH": first, "SERVED_MODEL_NAME": second})
    asked = 'printenv -0 MODEL_PATH SERVED_MODEL_NAME || printf ""'
    assert bash(f"{lines}{asked}") == [bind_text(first, BOUND), second]


def test_env_sets_variables_for_the_command_alone() -> None:
    command = with_env({"MODEL_PATH": "/a b;c"}, ("printenv", "-0", "MODEL_PATH"))
    assert bash(f"{command}; printenv -0 MODEL_PATH || true") == ["/a b;c"]
    assert with_env({}, ("etcd",)) == "etcd"
