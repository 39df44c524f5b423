"""Build indexes and open them: what `Index.build` and its like do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from retr.index.errors import UsageError
from retr.index.machine.home import index_folder
from retr.index.options import declared, taken
from retr.index.store import Store
from retr.retrieval.encoders.index_encoder import load_recorded
from retr.retrieval.encoders.options import split_spelled
from retr.retrieval.ingest.options import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.archive.opening import ArchiveLike
    from retr.retrieval.cluster.coordinator import Cluster
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.ingest.parts import PartReport
    from retr.retrieval.ingest.report import BuildReport

    class Built(IndexLike, Protocol):
        """An index that says what its build did."""

        report: BuildReport | None


Opened = TypeVar("Opened", bound="Built")
# What several encoders may have in common.
_COMMON = {"device", "precision"}


def build_indexes(
    kind: Callable[..., Opened],
    archive: ArchiveLike,
    encoders: Mapping[Path, str | BaseEncoder | None],
    *,
    progress: bool,
    options: Mapping[str, Any],
    ray: str | None = None,
) -> list[Opened]:
    """Embed an archive into one index or several, and open them.

    Parameters
    ----------
    kind
        The class of an open index.
    encoders
        For each index a name, with options behind commas, or a loaded encoder; None: the recorded one, or the default.
    options
        Fields of `BuildOptions`, and further ones of ``load_encoder``.
    ray
        The address of a Ray cluster, whose machines are to embed.

    Raises
    ------
    UsageError
        Several encoders are given an option that is one encoder's own.
    """
    from retr.retrieval.ingest.build import build_each
    from retr.retrieval.tuning import tune_if_large

    asked, loaders, settings = _read(encoders, options)
    reader = None if ray is None else _cluster(ray, archive, encoders, settings)
    reports = build_each(archive, loaders, progress=progress, reader=reader, **asked)
    opened = []
    for (path, load), own_options, report in zip(loaders.items(), settings, reports, strict=True):
        index = kind(Store.open(index_folder(path)), encoder=load(), options=own_options)
        index.report = replace(report, notes=(*report.notes, *tune_if_large(index)))
        opened.append(index)
    return opened


def _cluster(
    address: str,
    archive: ArchiveLike,
    encoders: Mapping[Path, str | BaseEncoder | None],
    settings: list[dict[str, Any]],
) -> Cluster:
    """Return what reads an archive on a cluster, whose processes load the encoder that is loaded here by themselves."""
    from retr.retrieval.cluster.coordinator import Cluster
    from retr.retrieval.encoders.registry import recorded_options

    if len(encoders) > 1:
        raise UsageError("a cluster builds one index, got several", hint="build them one at a time")
    ((encoder,), (options,)) = encoders.values(), settings

    def load(info: EncoderInfo) -> Callable[[], BaseEncoder]:
        if isinstance(encoder, str | None):
            return partial(load_recorded, info.name, None, {**recorded_options(info), **options})
        return partial(load_recorded, encoder, None, {})

    return Cluster(address, archive, load)


def build_part(
    archive: ArchiveLike,
    path: Path,
    encoder: str | BaseEncoder | None,
    part: str,
    *,
    progress: bool,
    options: Mapping[str, Any],
) -> PartReport:
    """Embed one part of an archive, to be merged with the others; parameters as `build_indexes`."""
    from retr.retrieval.ingest import parts

    asked, loaders, _ = _read({path: encoder}, options)
    return parts.build_part(archive, path, loaders[path], part, progress=progress, **asked)


def merge_parts(kind: Callable[..., Opened], path: Path, *, progress: bool) -> Opened:
    """Make an index of the parts beside it, and open it; ``kind`` as in `build_indexes`."""
    from retr.retrieval.ingest import merging
    from retr.retrieval.tuning import tune_if_large

    report = merging.merge_parts(path, progress=progress)
    index = kind(Store.open(path))
    index.report = replace(report, notes=(*report.notes, *tune_if_large(index)))
    return index


def _read(
    encoders: Mapping[Path, str | BaseEncoder | None], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[Path, Callable[[], BaseEncoder]], list[dict[str, Any]]]:
    """Return the options of the build, what loads the encoder of each index, and how each is loaded."""
    asked: Any = {name: value for name, value in options.items() if name in declared(BuildOptions)}
    loading = {name: value for name, value in options.items() if name not in asked}
    if len(encoders) > 1 and (own := sorted(loading.keys() - _COMMON)):
        raise UsageError(
            f"{own[0]!r} is an option of one encoder, and {len(encoders)} are given",
            hint=f"say it behind the name of that one: NAME,{own[0]}=VALUE",
        )
    loaders: dict[Path, Callable[[], BaseEncoder]] = {}
    settings = []
    for path, encoder in encoders.items():
        name, own_options = split_spelled(encoder) if isinstance(encoder, str) else (encoder, {})
        if not isinstance(name, str | None):
            # a loaded one takes no options: these would be left out without a word
            taken(BuildOptions, {key: value for key, value in loading.items() if key != "device"}, "build")
        settings.append({**loading, **own_options})
        loaders[path] = cache(partial(_load, index_folder(path), name, settings[-1]))
    return asked, loaders, settings


def _load(path: Path, encoder: str | BaseEncoder | None, options: Mapping[str, Any]) -> BaseEncoder:
    if Store.exists(path):
        from retr.retrieval.heads.adapted import load_for

        return load_for(Store.open(path), encoder, options)
    return load_recorded(encoder, None, options)
