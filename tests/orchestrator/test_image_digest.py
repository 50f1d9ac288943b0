from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tune.orchestrator.image_digest import ImageDigest


def digest_of(image: str | None) -> str | None:
    digest = ImageDigest()
    digest.begin(image)
    return digest.result(wait=True)


def test_digest_is_that_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    squash_file = tmp_path / "a.sqsh"
    for content in (b"first", b"second, longer"):
        squash_file.write_bytes(content)
        assert digest_of(str(squash_file)) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("image", [None, "nvcr.io#nvidia/x:1", "/no/such/file.sqsh", "/"])
def test_what_is_no_readable_file_has_no_digest(image: str | None) -> None:
    assert digest_of(image) is None
