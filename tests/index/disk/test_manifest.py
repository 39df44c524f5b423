"""Manifests of newer versions and damaged ones are refused in one line."""

from __future__ import annotations

import hashlib

import pytest

from retr.index.errors import FormatVersionError, IndexCorruptError
from retr.index.store import Store


def rewrite(store: Store, text: str) -> None:
    """Replace the manifest, and its sha256 in CURRENT."""
    (store.path / store.manifest.file).write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (store.path / "CURRENT").write_text(f"{store.manifest.file} {digest}\n")


def test_a_newer_format_is_refused(make):
    store = make(1)
    rewrite(
        store, (store.path / store.manifest.file).read_text().replace('"format_version": 1', '"format_version": 99')
    )
    with pytest.raises(FormatVersionError, match=r"format version 99.*upgrade retr"):
        Store.open(store.path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\0\0", '{"format_version": 1}'])
def test_a_damaged_manifest_is_said(make, text):
    store = make(1)
    (store.path / store.manifest.file).write_text(text)
    with pytest.raises(IndexCorruptError, match="was changed after"):
        Store.open(store.path)
    rewrite(store, text)
    with pytest.raises(IndexCorruptError, match=r"the manifest cannot be read.*restore the index from a copy"):
        Store.open(store.path)


def test_a_damaged_current_is_said(make):
    store = make(1)
    (store.path / "CURRENT").write_text("manifests/../../x")
    with pytest.raises(IndexCorruptError, match="CURRENT"):
        Store.open(store.path)
