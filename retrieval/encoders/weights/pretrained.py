"""transformers' ``from_pretrained`` on a folder: strict, silent and without the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from retr.index.errors import WeightsError
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.weights.fitting import CheckpointContents
from retr.retrieval.encoders.weights.untrusted import check_folder, read_json, reading, sealed

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def load_pretrained(model: str, folder: Path) -> nn.Module:
    """Load a model folder in float32 on the CPU.

    Parameters
    ----------
    model
        Name of the class in transformers, ``"Dinov2Model"``.
    folder
        With ``config.json`` and ``model.safetensors``.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or the tensors are not exactly those of the model.
    """
    check_folder(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise WeightsError(f"no {name} in {folder.name!r}", hint="get the whole folder as its authors publish it")
    where = f"config.json in {folder.name!r}"
    contents = CheckpointContents([folder / "model.safetensors"])
    contents.require_depth(read_json(folder / "config.json") or {}, where)
    ensure_torchvision()
    import transformers

    with sealed(), reading(f"{folder.name!r} as a {model}", folder=folder), contents.bounding(where):
        network, report = getattr(transformers, model).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with the other differences
        )
    problems = [
        f"{len(keys)} {word} ({', '.join(sorted(map(_name, keys))[:3])}{', ...' if len(keys) > 3 else ''})"
        for word, keys in (
            ("missing", report["missing_keys"]),
            ("unknown", report["unexpected_keys"]),
            ("of another shape", report["mismatched_keys"]),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"'model.safetensors' in {folder.name!r} does not fit a {model}: {'; '.join(problems)}",
            hint="is it the model this encoder asks for?",
        )
    return network  # type: ignore[no-any-return]


def _name(key: Any) -> str:
    """Return a key's name; transformers reports shapes beside the mismatched ones."""
    return key if isinstance(key, str) else str(key[0])
