"""The stand-in checkpoints are, bit for bit, those the expected arrays were made with."""

from __future__ import annotations

import hashlib
import json

import pytest
import standin

DIGESTS = json.loads((standin.HERE / "digests.json").read_text())


@pytest.mark.parametrize("kind", standin.VOCABULARIES)
def test_vocabularies(kind: str) -> None:
    text = "\n".join(standin.vocabulary(kind)) + "\n"
    assert hashlib.sha256(text.encode()).hexdigest() == DIGESTS[f"vocab/{kind}"]["sha256"]


@pytest.mark.parametrize("part", ["lvm_med_resnet", "kad_model"])
def test_tensors(part: str) -> None:
    assert standin.digest(standin.part(part, 0)) == DIGESTS[f"public/{part}"]["sha256"]
