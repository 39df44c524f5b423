"""MedImageInsight: DaViT and a text transformer, trained on pictures of fourteen kinds with texts (UniCL).

Reads the published folder: ``config.yaml``, one file in ``vision_model/`` (which holds the text side too) and the
tokenizer in ``language_model/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.index.errors import WeightsError
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights.checkpoints import WeightFile, find
from retr.retrieval.encoders.weights.untrusted import has_tokenizer, reading

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from retr.retrieval.encoders.base import BaseEncoder

_FOLDER = WeightFile(
    name="MedImageInsights",
    where="https://huggingface.co/lion-ai/MedImageInsights (its folder 2024.09.27), from Microsoft's model catalogue",
    hub="lion-ai/MedImageInsights",
    hub_files=("2024.09.27/config.yaml", "2024.09.27/vision_model/*", "2024.09.27/language_model/*/vocab.json"),
    hub_also=("2024.09.27/language_model/*/*",),
    folder=True,
)
CARD = Card(
    name="medimageinsight",
    summary="MedImageInsight, DaViT and a text transformer at 480 pixels; radiology, eye, skin, tissue and others",
    modality="many",
    dim=1024,
    text=True,
    licence="MIT",
    source="https://huggingface.co/lion-ai/MedImageInsights",
    files=(_FOLDER,),
    parameters=362_733_568,
)
_MOST_BYTES = 1 << 20


def _load(
    *, weights: str | os.PathLike[str] | None = None, device: str = "auto", precision: str = "auto"
) -> BaseEncoder:
    """Load MedImageInsight.

    Parameters
    ----------
    weights
        The folder with ``config.yaml``, ``vision_model/`` and ``language_model/``, or the one it lies in.
    device, precision
        As in ``load_encoder``.
    """
    folder = find(_FOLDER, weights, encoder=CARD.name)
    if not (folder / "config.yaml").is_file():
        inner = [place for place in sorted(folder.iterdir()) if (place / "config.yaml").is_file()]
        if len(inner) != 1:
            raise WeightsError(f"no config.yaml in {folder.name!r}", hint=f"get the folder from {_FOLDER.where}")
        folder = inner[0]
    with reading(f"the folder {folder.name!r}", folder=folder):
        config = _configuration(folder)
        file = _only(folder, "vision_model", "the weights")
        tokenizer = _tokenizer(folder)
    from retr.retrieval.encoders.networks.medimageinsight import load_medimageinsight

    with reading(f"the folder {folder.name!r}", folder=folder):
        return load_medimageinsight(folder, file, tokenizer, config, CARD, device=device, precision=precision)


def _configuration(folder: Path) -> dict[str, Any]:
    """Read ``config.yaml`` as data, and refuse what describes another network than the published one's kind."""
    import yaml

    path = folder / "config.yaml"
    if path.stat().st_size > _MOST_BYTES:
        raise WeightsError(f"config.yaml in {folder.name!r} is longer than any configuration", hint="get it again")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    parts = ("IMAGE_ENCODER", "LANG_ENCODER", "UNICL_MODEL", "AUG", "TEST")
    if not isinstance(config, dict) or not all(isinstance(config.get(part), dict) for part in parts):
        raise WeightsError(
            f"config.yaml in {folder.name!r} is not that of MedImageInsight: it needs {', '.join(parts)}",
            hint="get the folder again",
        )
    image, lang = config["IMAGE_ENCODER"], config["LANG_ENCODER"]
    kinds = {
        "IMAGE_ENCODER.NAME": (image.get("NAME"), "davit_v1"),
        "LANG_ENCODER.NAME": (lang.get("NAME"), "transformer"),
        "LANG_ENCODER.TOKENIZER": (lang.get("TOKENIZER"), "clip"),
        "UNICL_MODEL.STANDPARAM": (config["UNICL_MODEL"].get("STANDPARAM", True), True),
        "IMAGE_ENCODER.SPEC.STANDPARAM": ((image.get("SPEC") or {}).get("STANDPARAM", True), True),
    }
    for key, (found, wanted) in kinds.items():
        if found != wanted:
            raise WeightsError(
                f"config.yaml in {folder.name!r} has {key} {found!r}; only {wanted!r} is read",
                hint="is it the configuration of MedImageInsight?",
            )
    return config


def _only(folder: Path, name: str, what: str) -> Path:
    """Return the only file of a folder's folder."""
    held = sorted(path for path in (folder / name).glob("*") if path.is_file() and not path.name.startswith("."))
    if len(held) != 1:
        found = ", ".join(path.name for path in held[:3]) or "nothing"
        raise WeightsError(
            f"{name}/ in {folder.name!r} should hold {what} and nothing else, it holds {found}",
            hint="get the folder again",
        )
    return held[0]


def _tokenizer(folder: Path) -> Path:
    places = [
        place for place in sorted((folder / "language_model").glob("*")) if place.is_dir() and has_tokenizer(place)
    ]
    if len(places) != 1:
        raise WeightsError(f"no tokenizer in language_model/ of {folder.name!r}", hint="get the folder again")
    return places[0]


SPEC = Spec(card=CARD, load=_load)
