"""Checkpoints: found, hashed, read and loaded.

A file is looked for in this order and nowhere else:

1. the path the user gave;
2. the folder named by ``RETR_WEIGHTS``, as ``NAME`` or ``ENCODER/NAME``;
3. the Hugging Face hub's cache, and then the hub, for what is published there.

Only tensors are read: safetensors, or ``torch.load(weights_only=True)``. Loading is strict; a key is dropped
only when the encoder names it. The sha256 of a file is remembered in the user's cache, and taken again when anything
about the file is another: path, device and inode, size, time of change, time of the inode's change (which no program
can set back, so that a checkpoint exchanged for another of its size and date is noticed).
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from retr.index.errors import WeightsError
from retr.index.machine.extras import needed
from retr.index.machine.home import cache_folder, home
from retr.index.machine.whole_file import write_if_possible
from retr.retrieval.encoders.weights.untrusted import check_archive, read_json, reading, refuse_adapter, refuse_stand_in
from retr.retrieval.ignored_warnings import ignoring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

M = TypeVar("M", bound="nn.Module")
_CHUNK = 1 << 22


@dataclass(frozen=True)
class WeightFile:
    """A file or folder an encoder needs, and where people get it.

    Attributes
    ----------
    name
        Its name below ``RETR_WEIGHTS``, ``"RetiZero.pth"`` or ``"KAD_512/best_valid.pt"``.
    where
        Where it is published, for the error message: a URL or a sentence.
    option
        The ``load_encoder`` option that names it.
    hub
        Repository on the Hugging Face hub that holds it, where there is one.
    hub_name
        Its name in that repository when it differs from `name`.
    hub_files
        Of a folder on the hub, the names or patterns of the files that are needed; with `hub_any` and `hub_also`
        empty too, all files are.
    hub_any
        Of these at least one is needed.
    hub_also
        These are fetched where they are there.
    folder
        True where `name` is a folder (a hub-style model folder, a tokenizer).
    optional
        True where the encoder also works without it (a text side that is not asked).
    """

    name: str
    where: str
    option: str = "weights"
    hub: str | None = None
    hub_name: str | None = None
    hub_files: tuple[str, ...] = ()
    hub_any: tuple[str, ...] = ()
    hub_also: tuple[str, ...] = ()
    folder: bool = False
    optional: bool = False


def find(file: WeightFile, given: str | os.PathLike[str] | None = None, *, encoder: str, network: bool = True) -> Path:
    """Find a file or folder an encoder needs.

    Parameters
    ----------
    file
        What is needed.
    given
        The path the user gave; a folder that holds `file` is as good as the file.
    encoder
        The encoder's name, for ``RETR_WEIGHTS/ENCODER/NAME`` and for messages.
    network
        Whether the hub may be asked when nothing is found on this machine.

    Raises
    ------
    WeightsError
        If it is nowhere: the message names the file, where to get it and where to put it.
    """
    if given is not None:
        path = home(given)
        if path.is_dir() and not file.folder:
            path /= Path(file.name).name
        if path.is_dir() if file.folder else path.is_file():
            return path
        raise WeightsError(
            f"no {'folder' if file.folder else 'file'} at {os.fspath(given)!r}, {file.option} of {encoder!r}",
            hint=f"{Path(file.name).name!r} is published at {file.where}",
        )
    root = os.environ.get("RETR_WEIGHTS")
    if root:
        base = home(root)
        for path in (base / encoder / file.name, base / file.name, base / Path(file.name).name):
            if path.is_dir() if file.folder else path.is_file():
                return path
    found = _hub(file, network=network)
    if found is not None:
        return found
    raise WeightsError(
        f"{encoder!r} needs {file.name!r}, which is not on this machine",
        hint=f"get it from {file.where}, then pass {file.option}=PATH "
        f"(--{file.option.replace('_', '-')} PATH) or put it into the folder that RETR_WEIGHTS names",
    )


def _hub(file: WeightFile, *, network: bool) -> Path | None:
    """Look into the hub's cache, then, if allowed, ask the hub."""
    if file.hub is None:
        return None
    if not network and find_spec("huggingface_hub") is None:
        return None
    with needed():
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for local in (True, False) if network else (True,):
        try:
            if file.folder:
                wanted = [*file.hub_files, *file.hub_any, *file.hub_also] or None
                folder = Path(snapshot_download(file.hub, allow_patterns=wanted, local_files_only=local))
                found = [any(folder.glob(name)) for name in file.hub_any] or [True]
                if any(found) and all(any(folder.glob(name)) for name in file.hub_files):
                    return folder
                continue
            return Path(hf_hub_download(file.hub, file.hub_name or file.name, local_files_only=local))
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
            continue
    return None


def digest(*paths: Path) -> str:
    """Return the sha256 of a file, or of the sorted sha256 of several.

    The result is remembered (see above), because checkpoints are large and queries are short.
    """
    each = sorted(_digest(Path(path)) for path in paths)
    return each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()


def _digest(path: Path) -> str:
    path = path.resolve()
    status = path.stat()
    key = "|".join(
        map(str, (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    )
    store = cache_folder() / "digests" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        known = json.loads(store.read_bytes())
        if known["key"] == key:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError):
        pass
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha.update(chunk)
    write_if_possible(store, json.dumps({"key": key, "sha256": sha.hexdigest()}).encode())
    return sha.hexdigest()


def load_state_dict(path: Path) -> dict[str, Any]:
    """Read a checkpoint's tensors (on the CPU) as the file nests them.

    Raises
    ------
    WeightsError
        If the file is damaged, or holds anything but tensors and plain values.
    """
    refuse_adapter(path)
    refuse_stand_in(path)
    if path.suffix == ".safetensors" or _is_safetensors(path):
        from safetensors.torch import load_file

        with reading(f"the safetensors file {path.name!r}"):
            return dict(load_file(path))
    import argparse
    import pickle

    import torch

    check_archive(path)
    # what training programs keep beside the tensors: their options, and numbers that numpy computed
    plain = torch.serialization.safe_globals([argparse.Namespace, *_numpy_numbers()])
    # it warns of newer pickle protocols, which it either reads or refuses
    with reading(f"the checkpoint {path.name!r}"), ignoring(UserWarning), plain:
        try:
            # mapped: what is never used (an optimizer, a text tower) is never read
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except (pickle.UnpicklingError, LookupError, EOFError, AttributeError) as error:
            raise WeightsError(
                f"{path.name!r} is damaged or holds more than tensors, and is not loaded",
                hint="get the file again from its authors, or save its state dict alone",
            ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path.name!r} holds a {type(state).__name__}, expected a state dict")
    return dict(state)


def _is_safetensors(path: Path) -> bool:
    """Tell whether a file under another name is safetensors: the length of a header, then a JSON object."""
    with reading(f"the checkpoint {path.name!r}"), path.open("rb") as stream:
        start = stream.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _numpy_numbers() -> list[Any]:
    """Return what a pickled numpy number is made of, under the names that numpy 1 and 2 write."""
    import numpy as np

    scalar = np.float64(1).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *kinds]


def weight_files(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the first of some weight files that lies in a folder, whole before in shards; none: an empty list.

    Raises
    ------
    WeightsError
        A list of shards names what does not lie in the folder.
    """
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        listed = (read_json(index) or {}).get("weight_map")
        if listed is None:
            continue
        shards = sorted({str(shard) for shard in listed.values()}) if isinstance(listed, dict) else []
        if not shards or not all((folder / shard).is_file() and Path(shard).name == shard for shard in shards):
            raise WeightsError(
                f"{index.name} in {folder.name!r} lists files that are not there", hint="get the whole folder again"
            )
        return [folder / shard for shard in shards]
    return []


def split_state(state: Mapping[str, Tensor], *prefixes: str) -> tuple[dict[str, Tensor], ...]:
    """Split a state dict by the openings of its keys, taken off; the last dict holds what has none of them.

    >>> split_state({"a.x": 1, "b.y": 2, "scale": 3}, "a.", "b.")
    ({'x': 1}, {'y': 2}, {'scale': 3})
    """
    parts: list[dict[str, Tensor]] = [{} for _ in range(len(prefixes) + 1)]
    for key, value in state.items():
        place = next((i for i, prefix in enumerate(prefixes) if key.startswith(prefix)), len(prefixes))
        parts[place][key if place == len(prefixes) else key[len(prefixes[place]) :]] = value
    return tuple(parts)


def uninitialised(make: Callable[[], M]) -> M:
    """Build a network whose values are all to be loaded, without drawing random ones first (10 s for a ViT-L).

    Buffers that a state dict does not hold are left undefined too: the caller fills them.
    """
    import torch

    with torch.device("meta"):
        network = make()
    return network.to_empty(device="cpu")


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, file: str, dropped: Iterable[str] = ()) -> None:
    """Load a state dict into a module; every key must fit except the documented ones.

    Parameters
    ----------
    module
        The network.
    state
        Tensors by the module's own key names.
    file
        The checkpoint's name, for messages.
    dropped
        Patterns of keys (``"*.position_ids"``) that the file may hold and the network has no place for.

    Raises
    ------
    WeightsError
        If keys are missing or left over, or a shape differs.
    """
    import torch

    patterns = tuple(dropped)
    wanted = module.state_dict()
    kept = {
        key: value
        for key, value in state.items()
        if key in wanted or not any(fnmatchcase(key, pattern) for pattern in patterns)
    }
    values: Mapping[str, Any] = kept
    plain = next((key for key, value in values.items() if not isinstance(value, torch.Tensor)), None)
    if plain is not None:
        raise WeightsError(f"{file!r} holds {plain!r}, which is no tensor", hint="save its state dict alone")
    problems = [
        f"{len(keys)} {word} ({', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''})"
        for word, keys in (
            ("missing", wanted.keys() - kept.keys()),
            ("unknown", kept.keys() - wanted.keys()),
            (
                "of another shape",
                {k for k in wanted.keys() & kept.keys() if wanted[k].shape != kept[k].shape},
            ),
            (
                "of whole numbers",
                {
                    k
                    for k in wanted.keys() & kept.keys()
                    if wanted[k].is_floating_point() and not kept[k].is_floating_point()
                },
            ),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{file!r} does not fit the network: {'; '.join(problems)}",
            hint="is it the file this encoder asks for, and the right variant?",
        )
    module.load_state_dict(kept, strict=True)
