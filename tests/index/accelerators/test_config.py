"""Kinds of accelerators as they are stored, and amounts as people write them."""

from __future__ import annotations

import pytest

from retr.index.accelerators import config
from retr.index.accelerators.config import HNSW, IVF, Flat
from retr.index.errors import FormatVersionError, UsageError


def test_an_unknown_kind_asks_for_an_upgrade():
    with pytest.raises(FormatVersionError, match="retr index tune"):
        config.from_json({"kind": "quantum"})
    for kind in (Flat(), IVF(lists=7, codec="fp16"), HNSW(links=3)):
        assert config.from_json(config.to_json(kind)) == kind


def test_amounts_of_memory_are_read():
    assert config.parse_bytes("1.5GiB") == 3 << 29
    for wrong in ("", "G", "-1G", "lots", "nan", "inf"):
        with pytest.raises(UsageError, match="4G or 512M"):
            config.parse_bytes(wrong)
