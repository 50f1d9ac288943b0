"""Check what an accuracy run needs on the node of the load client, before a deployment is held for it."""

from __future__ import annotations

from tune.analysis.answer_scores import require_scorer
from tune.client.answer_tokenizer import load_tokenizer
from tune.errors import ConfigurationError
from tune.spec.findings import Finding


def require_accuracy_needs(tokenizer: str) -> None:
    """Raise ConfigurationError where a package is not installed, or `tokenizer` is no tokenizer.json."""
    require_scorer()
    load_tokenizer(tokenizer)


def accuracy_findings(tokenizer: str) -> tuple[Finding, ...]:
    """Return what this machine lacks for an accuracy run with the file `tokenizer`."""
    try:
        require_accuracy_needs(tokenizer)
    except ConfigurationError as error:
        return (
            Finding(
                "error",
                "load.accuracy",
                str(error),
                "the extra 'accuracy' and tokenizer.json, where the load client runs",
                "an attempt ends at once without them",
                "docs/how-to/accuracy.md",
            ),
        )
    return ()
