"""Read model folders and checkpoints from untrusted sources as data.

Nothing in them may run code, lead to another place than the folder itself, or change the model in silence. What could
is refused before a library sees it (`check_folder`, `refuse_adapter`, `check_archive`); what the libraries read then,
they read `sealed`: without the network, without asking on the terminal whether code may be run. What is damaged or
made up ends in one line (`reading`).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import zipfile
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from retr.index.errors import RetrError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROCESSORS = ("processor_config.json", "preprocessor_config.json")
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model"),
)
_CONFIGURATIONS = ("config.json", "open_clip_config.json", *PROCESSORS, *TOKENIZER[1:4])
_ADAPTERS = ("adapter_config.json", "adapter_model*", "pytorch_lora_weights*")
_ATTENTION = ("eager", "sdpa", None)
# Of a configuration: the longest are lists of special words, some megabytes.
_MOST_BYTES = 64 << 20
# Of what a library says: some list all they know.
_LONGEST_LINE = 300
# Who saved a configuration, and from where, is nothing the vectors depend on.
_HISTORY = {"_name_or_path", "name_or_path", "transformers_version", "_commit_hash"}
# How `sealed` found the libraries, and how many are within it.
_LOCK = threading.Lock()
_INSIDE: dict[str, Any] = {}
_REPOSITORY = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?")


def check_folder(folder: Path) -> None:
    """Refuse a model folder whose configurations would run code, or load something else than what lies in it.

    Raises
    ------
    WeightsError
        A configuration is damaged, names code or another place for the weights, or an adapter lies beside them.
    """
    refuse_adapter(folder)
    for name in _CONFIGURATIONS:
        read_json(folder / name)
    for inner in sorted(folder.iterdir()):
        # PEFT keeps adapters that have a name in folders of their own
        if inner.is_dir():
            refuse_adapter(inner)


def refuse_adapter(place: Path) -> None:
    """Refuse a checkpoint, or a folder of one, beside which a LoRA or another adapter lies.

    transformers applies it where `peft` is installed and ignores it where not: one name would mean two models.
    """
    folder = place if place.is_dir() else place.parent
    for found in sorted(folder.iterdir()):
        if any(fnmatchcase(found.name.lower(), pattern) for pattern in _ADAPTERS):
            raise WeightsError(
                f"an adapter (LoRA) lies beside the weights in {folder.name!r}: {found.name}; it would be applied on "
                "one machine and ignored on another",
                hint="merge it into the weights (`model.merge_and_unload()` of peft, then `save_pretrained` into a new "
                "folder), or move it elsewhere to embed without it",
            )


def read_json(path: Path) -> dict[str, Any] | None:
    """Read and check the configuration that lies beside a checkpoint; ``None`` where there is no such file.

    Raises
    ------
    WeightsError
        It is no JSON object, or holds what `check_folder` refuses.
    """
    if not path.exists():
        return None
    where = f"{path.name} in {path.parent.name!r}"
    if not path.is_file():
        raise WeightsError(f"{where} is no file", hint="get it again")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise WeightsError(f"{where} is longer than any configuration", hint="get it again")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise WeightsError(f"{where} is not JSON: {first_line(error)}", hint="get it again") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{where} is no JSON object", hint="get it again")
    for key, value in _entries(found):
        if key == "auto_map" and value:
            raise WeightsError(
                f"{where} names code of its own (auto_map), which is never run",
                hint="use a model whose code is in transformers or open_clip; where the weights are of such a class, "
                "take auto_map out of the file",
            )
        if key in {"transformers_weights", "quantization_config"} and value:
            raise WeightsError(
                f"{where} has {key!r}: the weights would be read in another way than they are hashed",
                hint="save the model in its plain form (`dequantize`, then `save_pretrained`)",
            )
        if key.strip("_").removesuffix("_internal") == "attn_implementation" and value not in _ATTENTION:
            raise WeightsError(
                f"{where} asks for the attention {value!r}, which is code from elsewhere",
                hint="take the key out of the file",
            )
    return found


def check_repository(name: Any, where: str) -> str:
    """Return the name of a hub repository that a configuration holds; `WeightsError` where it is anything else."""
    if not isinstance(name, str) or not _REPOSITORY.fullmatch(name):
        raise WeightsError(f"{where} names {name!r}, which is no model's name", hint="get it again")
    return name


def read_processor(folder: Path) -> dict[str, Any] | None:
    """Read how a folder's pictures are prepared: ``processor_config.json`` (transformers 5), else the file of old."""
    whole = read_json(folder / PROCESSORS[0]) or {}
    nested = whole.get("image_processor")
    return nested if isinstance(nested, dict) else read_json(folder / PROCESSORS[1])


def has_tokenizer(folder: Path) -> bool:
    """Return whether a tokenizer lies in a folder."""
    return any(True for pattern in TOKENIZER[:2] + TOKENIZER[4:] for _ in folder.glob(pattern))


def tokenizer_digest(folder: Path, *others: str) -> str:
    """Return the sha256 of a folder's tokenizer files, and of other files by name, as far as they are there."""
    found = {path for pattern in (*TOKENIZER, *others) for path in folder.glob(pattern) if path.is_file()}
    each = [
        f"{path.name} "
        + (
            config_digest(read_json(path))
            if path.name in _CONFIGURATIONS
            else hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in sorted(found)
    ]
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def config_digest(*configurations: dict[str, Any] | None) -> str:
    """Return the sha256 of what configurations say; spacing, order, and who saved them do not count."""
    said = [
        None if one is None else {key: value for key, value in one.items() if key not in _HISTORY}
        for one in configurations
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_archive(path: Path) -> None:
    """Refuse a zip whose members are compressed or overlap: torch writes neither, and a small one fills the memory."""
    with reading(f"the checkpoint {path.name!r}"):
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    if any(one.compress_type for one in members) or sum(one.file_size for one in members) > path.stat().st_size:
        raise WeightsError(f"{path.name!r} is compressed, which torch never writes", hint="save its state dict again")


def refuse_stand_in(path: Path) -> None:
    """Refuse what lies in the place of a weights file where a download went wrong: nothing, a pointer, a web page."""
    with reading(f"the checkpoint {path.name!r}"), path.open("rb") as stream:
        start = stream.read(64)
    if not start:
        raise WeightsError(f"{path.name!r} is empty", hint="get it again")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path.name!r} is a pointer of Git LFS, not the weights",
            hint="run `git lfs pull` in its folder, or download the file itself",
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{path.name!r} is a web page, not the weights",
            hint="download the file itself, signed in if it asks for it",
        )


def first_line(error: BaseException) -> str:
    """Return an error's first line, shortened, or its kind where it says nothing."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, LookupError):  # its text is the name alone
        said = f"{type(error).__name__} {said}"
    return said if len(said) <= _LONGEST_LINE else said[:_LONGEST_LINE] + " ..."


@contextmanager
def reading(what: str, *, folder: Path | None = None, hint: str = "get it again") -> Iterator[None]:
    """Turn whatever a library raises on a damaged or made-up file into a `WeightsError` of one line.

    Parameters
    ----------
    what
        Begins the message: ``"the folder 'x'"``.
    folder
        Its full path, which the message then does not repeat.
    """
    try:
        yield
    except RetrError:
        raise
    except ImportError as error:
        said = f"{what} needs a package that is not installed: {first_line(error)}"
        raise WeightsError(said, hint="install it with pip") from error
    except Exception as error:  # anything at all: the libraries check little of what they are handed
        said = first_line(error)
        if folder is not None:
            said = said.replace(str(folder), folder.name)
        raise WeightsError(f"{what} does not load: {said}", hint=hint) from error


@contextmanager
def sealed() -> Iterator[None]:
    """Keep transformers and the hub's client from the network, from asking whether to run code, and from talking."""
    from huggingface_hub import constants
    from transformers import dynamic_module_utils
    from transformers.utils import logging

    # the switches are the process's: the first to come sets them, the last to leave sets them back
    with _LOCK:
        if not _INSIDE:
            _INSIDE.update(
                offline=constants.HF_HUB_OFFLINE,
                time=dynamic_module_utils.TIME_OUT_REMOTE_CODE,
                bar=logging.is_progress_bar_enabled(),
                verbosity=logging.get_verbosity(),
                count=0,
            )
            # with no time to answer, the question on the terminal is an error instead
            constants.HF_HUB_OFFLINE, dynamic_module_utils.TIME_OUT_REMOTE_CODE = True, 0
            logging.disable_progress_bar()
            logging.set_verbosity_error()
        _INSIDE["count"] += 1
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE["count"] -= 1
            if not _INSIDE["count"]:
                constants.HF_HUB_OFFLINE = _INSIDE["offline"]
                dynamic_module_utils.TIME_OUT_REMOTE_CODE = _INSIDE["time"]
                logging.set_verbosity(_INSIDE["verbosity"])
                if _INSIDE["bar"]:
                    logging.enable_progress_bar()
                _INSIDE.clear()


def _entries(found: Any) -> Iterator[tuple[str, Any]]:
    """Go through the keys of a JSON value at any depth."""
    left = [found]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield from one.items()
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
