"""The files of an open_clip model: their names, where they are found, and the model they resolve to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retr.index.errors import WeightsError
from retr.retrieval.encoders.weights import checkpoints as files
from retr.retrieval.encoders.weights.checkpoints import WeightFile

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "open_clip_config.json"
HUB = "hf-hub:"
# In open_clip's own order of preference.
CHECKPOINTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
)


@dataclass(frozen=True)
class ResolvedModel:
    """What a name and its options come to: architecture, stated preprocessing, checkpoint.

    `folder` is where its configuration lies, None of an architecture of open_clip's own; `hub` whether the weights are
    the hub's, so that what the configuration names for the texts may be asked of it too.
    """

    architecture: str
    model: dict[str, Any]
    preprocess: dict[str, Any]
    checkpoint: Path
    folder: Path | None
    where: str
    hub: bool = False


def find_checkpoint(folder: Path) -> Path:
    """Find the checkpoint in a folder, in open_clip's order of preference."""
    for name in CHECKPOINTS:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"no checkpoint in the folder given as weights, {folder.name!r}",
        hint=f"it should hold one of {', '.join(CHECKPOINTS)}",
    )


def from_hub(repository: str) -> Path:
    """Find the folder of a hub repository: in ``RETR_WEIGHTS``, in the hub's cache, else fetched."""
    where = f"https://huggingface.co/{repository}"
    wanted = WeightFile(repository, where=where, hub=repository, hub_files=(CONFIG,), folder=True)
    folder = files.find(wanted, encoder=f"open_clip:{HUB}{repository}")
    for network in (False, True):
        for name in CHECKPOINTS:
            if (folder / name).is_file():
                return folder
            try:
                return files.find(WeightFile(name, where, hub=repository), encoder=repository, network=network).parent
            except WeightsError:
                continue
    raise WeightsError(f"no checkpoint in {repository!r} on this machine, nor in reach", hint=f"see {where}")
