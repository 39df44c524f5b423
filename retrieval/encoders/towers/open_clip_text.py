"""The text side of an `open_clip` encoder beside its weights: the tokenizer, and a transformers model's configuration.

Both are looked for in the folder given, beside the weights, in ``RETR_WEIGHTS`` and in the hub's cache; the hub itself
is asked only where the weights are the hub's too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.index.errors import WeightsError
from retr.retrieval.encoders.torchvision_import import ensure_torchvision
from retr.retrieval.encoders.weights import checkpoints as files
from retr.retrieval.encoders.weights.checkpoints import WeightFile
from retr.retrieval.encoders.weights.untrusted import (
    TOKENIZER,
    check_folder,
    config_digest,
    has_tokenizer,
    read_json,
    reading,
    sealed,
    tokenizer_digest,
)

ensure_torchvision()

import open_clip  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retr.retrieval.encoders.weights.open_clip_files import ResolvedModel

# What a configuration may tell its tokenizer; others would reach transformers, `trust_remote_code` among them.
OPTIONS = ("clean", "strip_sep_token", "language")


def config_folder(repository: str, source: ResolvedModel, text_model: Path | None) -> Path:
    """Find the folder with the ``config.json`` of a transformers text side."""
    wanted = WeightFile(
        repository,
        where=f"https://huggingface.co/{repository} (config.json and the tokenizer's files)",
        option="text_model",
        hub=repository,
        hub_files=("config.json",),
        folder=True,
    )
    folder = files.find(wanted, text_model, encoder=f"open_clip:{source.architecture}", network=source.hub)
    check_folder(folder)
    return folder


def _tokenizer_folder(name: str, source: ResolvedModel, text_model: Path | None, *, network: bool) -> Path:
    """Find the folder with a transformers tokenizer: given, beside the weights, in the hub's cache or on the hub."""
    for place in (text_model, source.folder):
        if place is not None and has_tokenizer(place):
            return place
    where = f"https://huggingface.co/{name}"
    try:
        wanted = WeightFile(
            name, where, "text_model", hub=name, hub_any=TOKENIZER, hub_also=("config.json",), folder=True
        )
        return files.find(wanted, encoder=f"open_clip:{source.architecture}", network=network)
    except WeightsError as error:
        raise WeightsError(
            f"the tokenizer {name!r} is not on this machine",
            hint=f"get it from {where} and pass text_model=FOLDER (--text-model FOLDER)",
        ) from error


def make_tokenizer(source: ResolvedModel, text_model: Path | None) -> Any:
    """Make the model's own tokenizer."""
    text = source.model["text_cfg"]
    name = text.get("hf_tokenizer_name")
    length = text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    given = text.get("tokenizer_kwargs") or {}
    options = {key: given[key] for key in OPTIONS if key in given}
    if not name:
        clean = {key: options[key] for key in ("clean",) if key in options}
        return open_clip.SimpleTokenizer(context_length=length, **clean)
    folder = _tokenizer_folder(name, source, text_model, network=source.hub)
    check_folder(folder)
    with sealed(), reading(f"the tokenizer {name!r}", folder=folder):
        return open_clip.tokenizer.HFTokenizer(
            str(folder),
            context_length=length,
            tokenizer_mode=text.get("tokenizer_mode"),
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )


def described(source: ResolvedModel, text_model: Path | None) -> str | None:
    """Return the sha256 of what was stated beside the weights; None where all is open_clip's own."""
    repository = source.model["text_cfg"].get("hf_model_name")
    text = read_json(config_folder(repository, source, text_model) / "config.json") if repository else None
    own = source.folder is not None
    return config_digest(source.model, source.preprocess, text) if own else config_digest(text) if text else None


def tokenized(source: ResolvedModel, text_model: Path | None) -> str | None:
    """Return the sha256 of the tokenizer of a transformers text side, as far as it is on this machine."""
    name = source.model["text_cfg"].get("hf_tokenizer_name")
    if not name:
        return None
    try:
        return tokenizer_digest(_tokenizer_folder(name, source, text_model, network=False), "config.json")
    except WeightsError:
        return None


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, int]]:
    """Count the tokens of texts, marks of beginning and end included, and how many of them are read."""
    limit = int(tokenizer.context_length)
    if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):
        with sealed():
            # in the mode of CLIPS three marks are added by hand
            by_hand = tokenizer.tokenizer_mode == "clips"
            cleaned = [tokenizer.clean_fn(text) for text in texts]
            found = tokenizer.tokenizer(cleaned, add_special_tokens=not by_hand)["input_ids"]
        counts = [len(ids) + (3 if by_hand else 0) for ids in found]
    else:
        counts = [len(tokenizer.encode(text)) + 2 for text in texts]
    return [(count, min(count, limit)) for count in counts]
