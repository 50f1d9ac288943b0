"""Hold the code, its messages and its documents to one vocabulary and one style."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = {".css", ".html", ".ipynb", ".js", ".md", ".py", ".sh", ".toml", ".yaml", ".yml"}
EXEMPT = {
    *("CHANGELOG.md", "tests/test_language.py", "tune/config/renamed_settings.py"),
    "tests/cli/test_retired_input.py",
}
"""Files that have to name what is gone: what changed, this table, the renamed settings and their test."""

RETIRED = {
    "believe|believes|believed|belief|beliefs": "estimate, posterior, surrogate",
    "told|tells of": "observed, shows",
    "hears|heard|hear of": "receives, observes",
    "outdo|outdoes|outdone|unbeaten": "early stop threshold, stopped early",
    "given up|gives up|give up|gave up": "stopped early",
    "incumbent|incumbents": "baseline",
    "orders? of lengths|length order|length orders": "shuffle",
    "stated rates?|held rates?|confirmed rates?": "guaranteed rate, verified rate",
    "what binds|reliefs?": "bottleneck, recommendation",
    "lent|withdrawn": "allocation, revoked",
    "inbox|inboxes": "queue",
    "kin": "process tree",
    "guardian": "supervisor",
    "hopeless": "futile",
    "distrust|distrusted": "invalid",
    "turned down": "retry, rejected",
    "whoever": "the process that ...",
    "front end|front ends": "frontend",
    "ln_[a-z]\\w*": "log_...",
    "slo_held\\w*": "slo_met",
    "held_s": "occupied_s",
    "(?-i:Composition)": "ComposedConfig",
    "adopt|adopts|adopted|adoption": "add_trial, take over, keep",
    "length_seed": "shuffle_seed",
    "bracket_qps": "rate_range_qps",
    "beat_best": "early_stop",
    "rest_to_decode": "fill_decode",
    "boundary": "estimate, limit",
}
"""Words that are gone, and what is said instead (docs/glossary.md)."""

_VERBS = """
Accept Accumulate Act Adapt Add Admit Advance Allocate Allow Anchor Annotate Answer Append Apply
Approximate Arrange Ask Assemble Assert Assign Attach Average Await Balance Begin Bind Block Bring
Broadcast Build Cache Calibrate Call Cancel Cap Capture Carry Catch Centre Change Check Choose Claim
Classify Clean Clear Climb Clip Close Coerce Collect Colour Combine Compare Compile Complete Compose
Compute Concatenate Condition Confirm Connect Construct Consume Contain Control Convert Copy Correct
Count Create Cut Damage Decide Declare Decode Deduplicate Defer Define Delay Delete Deploy Derive
Describe Destroy Detect Discard Dispatch Display Divide Do Download Draw Drive Drop Embed Emit Emulate
Encode End Enforce Enqueue Ensure Enter Enumerate Escape Estimate Evaluate Exchange Exclude Execute Exit
Expand Expect Explain Export Express Extend Extract Factorise Fail Feed Fetch Fill Filter Find Finish
Fit Flag Flatten Flush Follow Forecast Forget Fork Format Free Freeze Gather Generate Get Give Group
Guarantee Guard Hand Handle Have Highlight Hold Identify Ignore Implement Import Improve Infer Inherit
Initialise Inject Insert Inspect Install Integrate Interpolate Interpret Invert Issue Iterate Join Judge
Keep Kill Label Launch Lay Lead Learn Leave Let Lift Limit Link List Listen Load Locate Lock Log Look
Lower Maintain Make Map Mark Mask Match Measure Mend Merge Migrate Minimise Mirror Mock Model Monitor
Mount Move Multiply Name Narrow Normalise Note Notify Number Observe Occupy Offer Open Optimise Override
Pack Pair Parse Pass Pause Perform Persist Pick Pickle Pin Place Plan Plot Poll Pool Populate Predict
Prefix Prepare Present Preserve Press Print Propose Protect Prove Provide Prune Publish Pull Push Put
Quantise Query Queue Quote Raise Rank Rate Reach Read Reap Rebuild Receive Recognise Recommend
Reconstruct Record Recover Reduce Refer Refine Refit Refuse Register Reject Release Reload Remember
Remove Rename Render Reopen Reorder Repeat Replace Replay Report Represent Reproduce Request Require
Resample Rescale Reseed Reserve Reset Reshape Resolve Respond Restore Restrict Resume Retry Return Reuse
Reverse Revoke Rewind Rewrite Rotate Round Route Run Sample Save Scale Schedule Score Scrape Search
Select Send Separate Serve Set Shift Shorten Show Shrink Shuffle Shut Signal Simplify Simulate Skim Skip
Sleep Smooth Solve Sort Spawn Specify Split Spread Stand Start State Stay Step Stop Store Stratify
Stream Strip Submit Substitute Subtract Suggest Sum Summarise Supervise Supply Survive Suspend Switch
Synchronise Tabulate Tag Take Terminate Test Throw Tokenise Trace Track Train Transform Translate Trim
Truncate Try Turn Undo Unify Unlock Unpack Unpickle Unregister Update Use Validate Vary Verify Visit
Wait Wake Walk Warm Warn Watch Weigh Widen Wire Work Wrap Write Yield
"""
"""First words of docstrings. A new verb is added here; nouns and third persons are not."""

VERBS = frozenset(_VERBS.split())

REFERS_BACK = re.compile(
    r"\b(?:as (?:above|before)|likewise|ditto|in the same way|says the same|the same(?:$|[.,;:)]| of | for ))"
)
"""Words by which a docstring leans on its neighbours: it says instead what is equal, and to what."""

MAX_NAME_WORDS = 16
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60

MAX_PLAIN_ARGUMENTS = 2
"""Functions that other packages import and that take more arguments have numpy sections."""

PATH = re.compile(r"(?<![\w./~-])(?:tune|benchmarks|conf|tests|scripts)/[\w./-]*\w")
"""A path inside the project."""

NAMING = re.compile(r"tune/.*\.py|docs/.*\.md|(?:README|DESIGN|CONTRIBUTING)\.md")
"""Files whose paths have to exist; CHANGELOG.md names what is gone."""

ROLES = {"__init__", "__main__", "adapter", "base", "preflight", "registry", "rules"}
"""Stems that several packages may have: each names a role."""


@cache
def tracked() -> tuple[str, ...]:
    """Return the files that belong to the project, relative to its root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return tuple(sorted(name for name in listed.stdout.split("\0") if (ROOT / name).is_file()))
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return tuple(sorted(str(path) for path in found if not any(part[0] == "." for part in path.parts)))


def modules(*tops: str) -> Iterator[tuple[str, tuple[ast.AST, ...]]]:
    """Yield the name and the nodes of every Python file below the folders `tops`, the module itself first."""
    for name in tracked():
        if name.endswith(".py") and name.startswith(tops):
            yield name, nodes_of(name)


@cache
def nodes_of(name: str) -> tuple[ast.AST, ...]:
    """Return definitions, imports and the module itself of a Python file, parsed once in a process."""
    wanted = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.ImportFrom, ast.Import)
    return tuple(node for node in ast.walk(ast.parse(text_of(name))) if isinstance(node, wanted))


def body_of(nodes: tuple[ast.AST, ...]) -> list[ast.stmt]:
    """Return the statements of a module."""
    module = nodes[0]
    assert isinstance(module, ast.Module)
    return module.body


def size(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of arguments of a function; several without names of their own count once."""
    one_by_one = (function.args.posonlyargs, function.args.args, function.args.kwonlyargs)
    return sum(map(len, one_by_one)) + sum(map(bool, (function.args.vararg, function.args.kwarg)))


def missing_sections(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the numpy sections that the docstring of a function lacks."""
    docstring = ast.get_docstring(function) or ""
    has = {name: f"{name}\n{'-' * len(name)}" in docstring for name in ("Parameters", "Returns", "Yields")}
    nothing = isinstance(function.returns, ast.Constant) and function.returns.value is None
    missing = [] if has["Parameters"] else ["Parameters"]
    return missing if nothing or has["Returns"] or has["Yields"] else [*missing, "Returns"]


def used_elsewhere() -> set[tuple[str, str]]:
    """Return (module, name) of all that a package of tune imports from another; name "*" is the module."""
    used = set()
    for file, nodes in modules("tune/"):
        package = file.removesuffix(".py").split("/")[:2]
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[:2] != package:
                used |= {(node.module, alias.name) for alias in node.names}
                used |= {(f"{node.module}.{alias.name}", "*") for alias in node.names}
    return used


def prose(name: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines of a document, or of the comments and strings of a module."""
    if not name.endswith(".py"):
        yield from enumerate(text_of(name).splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text_of(name)).readline):
        if token.type in {tokenize.COMMENT, tokenize.STRING}:
            yield from enumerate(token.string.splitlines(), token.start[0])


def begins_with_verb(docstring: str) -> bool:
    """Return whether a docstring begins with one of VERBS; "Size of ..." begins with a noun."""
    first, second = (*docstring.split()[:2], "", "")[:2]
    return first.rstrip(".,:;") in VERBS and second != "of"


@cache
def text_of(name: str) -> str:
    """Return the text of a tracked file."""
    return (ROOT / name).read_text(encoding="utf-8")


def findings(lines: list[str]) -> str:
    """Format what a test found, its count first."""
    return "\n".join([f"{len(lines)} found", *lines])


@pytest.mark.parametrize("words", RETIRED)
def test_retired_words_are_gone(words: str) -> None:
    pattern = re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.IGNORECASE)
    lines = []
    for name in tracked():
        if (Path(name).suffix in SUFFIXES or name == "Makefile") and name not in EXEMPT:
            text = text_of(name)
            for found in pattern.finditer(text):
                number = text.count("\n", 0, found.start()) + 1
                lines.append(f"{name}:{number}: {text.splitlines()[number - 1].strip()[:100]}")
    assert not lines, findings([f"say instead: {RETIRED[words]}", *lines])


def test_no_file_is_named_by_a_retired_word() -> None:
    pattern = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(RETIRED)})(?![A-Za-z])", re.IGNORECASE)
    assert not [name for name in tracked() if pattern.search(name)]


def test_no_file_has_a_conflict_of_a_merge_in_it() -> None:
    marked = re.compile(r"^(?:<{7}|>{7})(?: |$)", re.MULTILINE)
    texts = {name: text_of(name) for name in tracked() if Path(name).suffix in SUFFIXES}
    assert not [name for name, text in texts.items() if marked.search(text)]


def test_docstrings_begin_with_a_verb() -> None:
    """Docstrings of tests alone state what holds."""
    lines = []
    for name, nodes in modules("tune/", "benchmarks/", "scripts/", "tests/"):
        for node in nodes:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node)
                is_test = getattr(node, "name", "").startswith("test_")
                if docstring and not is_test and not begins_with_verb(docstring):
                    lines.append(f"{name}:{getattr(node, 'lineno', 1)}: {docstring.splitlines()[0][:90]}")
    assert not lines, findings(lines)


def test_docstrings_can_be_read_alone() -> None:
    lines = []
    for name, nodes in modules("tune/", "benchmarks/"):
        for node in nodes:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                for found in REFERS_BACK.finditer(text):
                    around = text[max(0, found.start() - 60) : found.end() + 20]
                    lines.append(f"{name}:{getattr(node, 'lineno', 1)}: {around}")
    assert not lines, findings(lines)


def test_functions_for_other_packages_explain_their_arguments() -> None:
    used = used_elsewhere()
    lines = []
    for name, nodes in modules("tune/"):
        module = name.removesuffix(".py").replace("/", ".")
        for node in body_of(nodes):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                shared = bool({(module, node.name), (module, "*")} & used)
                if shared and size(node) > MAX_PLAIN_ARGUMENTS and (missing := missing_sections(node)):
                    lines.append(f"{name}:{node.lineno}: {node.name} lacks {', '.join(missing)}")
    assert not lines, findings(lines)


def test_paths_in_prose_exist() -> None:
    lines = []
    for name in tracked():
        if NAMING.fullmatch(name):
            for number, line in prose(name):
                paths = (path for path in PATH.findall(line) if "NAME" not in path)
                lines += [f"{name}:{number}: {path}" for path in paths if not (ROOT / path).exists()]
    assert not lines, findings(lines)


def test_no_two_modules_share_a_stem() -> None:
    by_stem = defaultdict(list)
    for name, _ in modules("tune/"):
        if Path(name).stem not in ROLES:
            by_stem[Path(name).stem].append(name)
    assert not {stem: names for stem, names in by_stem.items() if len(names) > 1}


def test_no_two_public_classes_or_functions_share_a_name() -> None:
    by_name = defaultdict(list)
    for module, nodes in modules("tune/"):
        for node in body_of(nodes):
            if (
                isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and not node.name.startswith("_")
                and not (node.name == "main" and module.endswith("__main__.py"))
            ):
                by_name[node.name].append(module)
    lines = [f"{name}: {', '.join(where)}" for name, where in sorted(by_name.items()) if len(where) > 1]
    assert not lines, findings(lines)


def test_no_test_module_imports_another() -> None:
    lines = []
    for name, nodes in modules("tests/"):
        for node in nodes:
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(part.startswith("test_") for module in imported for part in module.split(".")):
                lines.append(f"{name}:{getattr(node, 'lineno', 1)}: shared code belongs into tests/support")
    assert not lines, findings(lines)


def test_tests_are_named_by_what_is_true() -> None:
    """A name is short enough to be read in a line of CI."""
    lines = []
    for name, nodes in modules("tests/"):
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                words = node.name.removeprefix("test_").split("_")
                if len(words) > MAX_NAME_WORDS:
                    lines.append(f"{name}:{node.lineno}: {node.name}")
    assert not lines, findings(lines)


def test_files_and_functions_stay_short() -> None:
    lines = []
    for name, nodes in modules("tune/", "benchmarks/", "scripts/", "tests/"):
        if (length := len(text_of(name).splitlines())) > MAX_FILE_LINES:
            lines.append(f"{name}: {length} lines; divide it by topic")
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    lines.append(f"{name}:{node.lineno}: {node.name} has {length} lines")
    assert not lines, findings(lines)
