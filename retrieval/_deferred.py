"""The methods of `Index` that are defined in other modules, imported at their first use.

Each is a function whose first parameter is the index; a command line of the same name calls it.
"""

from __future__ import annotations

from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any, Self, cast

from retr.index.errors import UsageError
from retr.index.machine.home import index_folder
from retr.index.machine.waiting import waiting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from retr.retrieval import declaring, exporting, query_vectors, reembedding, sharding, tuning
    from retr.retrieval import explain as explaining
    from retr.retrieval import links as linking
    from retr.retrieval import stores as storing
    from retr.retrieval.archive.opening import ArchiveLike
    from retr.retrieval.audit import duplicates, leaks
    from retr.retrieval.classify import calibrate
    from retr.retrieval.classify import classify as classifying
    from retr.retrieval.classify import few_shot as few_shots
    from retr.retrieval.curation import map as mapping
    from retr.retrieval.curation import outliers, sampling, suspects
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation import evaluate, graded
    from retr.retrieval.evaluation import texts as text_evaluation
    from retr.retrieval.heads import adapt
    from retr.retrieval.index_like import IndexLike
    from retr.retrieval.ingest.parts import PartReport
    from retr.retrieval.interop import sql as sql_
    from retr.retrieval.regions import adding
    from retr.retrieval.sets.sets import Sets
    from retr.retrieval.text import align
    from retr.retrieval.transforms import refit as refitting
    from retr.retrieval.words import kind as wording


class _From:
    """A method of `Index` that another module defines, imported at its first use.

    What it does is named where it takes a while (`retr.index.machine.waiting`), unless its own steps all are.
    """

    def __init__(self, module: str, doing: str | None = None) -> None:
        self._module, self._doing = f"retr.retrieval.{module}", doing

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, index: object | None, owner: type) -> Any:
        function = getattr(import_module(self._module), self._name)
        if index is None:
            return function
        return MethodType(function if self._doing is None else waiting(self._doing)(function), index)


class Deferred:
    """What labels give, what is wrong in an archive, and how it is searched."""

    if TYPE_CHECKING:
        classify = classifying.classify
        classify_rows = classifying.classify_rows
        few_shot = few_shots.few_shot
        calibrate = calibrate.calibrate
        evaluate = evaluate.evaluate
        evaluate_text = text_evaluation.evaluate_text
        evaluate_graded = graded.evaluate_graded
        adapt = adapt.adapt
        align = align.align
        duplicates = duplicates.duplicates
        leaks = leaks.leaks
        outliers = outliers.outliers
        suspects = suspects.suspects
        sample = sampling.sample
        map = mapping.map
        tune = tuning.tune
        embed = query_vectors.embed
        shard = sharding.shard
        explain = explaining.explain
        export = exporting.export
        refit = refitting.refit
        reembed = reembedding.reembed
        links = linking.links
        push = storing.push
        sql = sql_.sql
        words = wording.words
        add_regions = adding.add_regions
        set_group = declaring.set_group
        set_item = declaring.set_item
    else:
        classify = _From("classify.classify")
        classify_rows = _From("classify.classify", "naming what the rows show")
        few_shot = _From("classify.few_shot")
        calibrate = _From("classify.calibrate", "measuring how far answers can be trusted")
        evaluate = _From("evaluation.evaluate", "evaluating on labelled rows")
        evaluate_text = _From("evaluation.texts", "evaluating pictures and texts")
        evaluate_graded = _From("evaluation.graded", "evaluating against judgements")
        adapt = _From("heads.adapt")
        align = _From("text.align")
        duplicates = _From("audit.duplicates", "looking for the same picture")
        leaks = _From("audit.leaks", "looking for what crosses the split")
        outliers = _From("curation.outliers", "comparing each row with its nearest")
        suspects = _From("curation.suspects", "comparing labels with those of the nearest rows")
        sample = _From("curation.sampling", "choosing rows")
        map = _From("curation.map")
        tune = _From("tuning", "measuring how fast search can be")
        embed = _From("query_vectors")
        shard = _From("sharding", "moving rows between folders")
        explain = _From("explain")
        export = _From("exporting", "writing vectors and metadata")
        refit = _From("transforms.refit")
        reembed = _From("reembedding")
        add_regions = _From("regions.adding")
        links = _From("links")
        push = _From("stores")
        sql = _From("interop.sql")
        words = _From("words.kind")
        set_group = _From("declaring")
        set_item = _From("declaring")

    @classmethod
    def build_several(
        cls,
        archive: ArchiveLike,
        encoders: Mapping[str, str | BaseEncoder | None] | Mapping[Path, str | BaseEncoder | None],
        *,
        progress: bool = False,
        **options: Any,
    ) -> list[Self]:
        """Embed an archive into several indexes in one reading, each by an encoder of its own.

        A file is read once, and decoded once for all encoders whose pictures come out the same to the last bit. Each
        index is what `build` makes of the archive alone. A build that was stopped goes on in each where that one was.

        Parameters
        ----------
        archive, progress
            As in `build`.
        encoders
            For each index folder its encoder, as `build` takes one.
        options
            As in `build`, for all; of the options of ``load_encoder`` those that all take: ``device=``, ``precision=``.
            One encoder's own stand behind its name: ``"retfound,weights=FILE"``.

        Returns
        -------
        list[Index]
            Open, in the order of ``encoders``; ``report`` of each says what was done.

        Raises
        ------
        UsageError
            As `build`; or two are the same folder, or one lies in another. Nothing is written then, into none.

        Examples
        --------
        >>> import tempfile
        >>> from retr import Index
        >>> from retr.sample import sample_encoder, sample_index
        >>> archive = sample_index().path.parent / "healthy"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     built = Index.build_several(archive, {f"{folder}/a": sample_encoder(), f"{folder}/b": "lite"})
        ...     [(index.info()["encoder"], index.report.embedded) for index in built]
        [('colours', 12), ('lite', 12)]
        """
        from retr.retrieval.building import build_indexes

        given = {index_folder(path): encoder for path, encoder in encoders.items()}
        if len(given) < len(encoders):
            raise UsageError("two of the indexes are one folder", hint="give each a folder of its own")
        made: Any = build_indexes(cast("Any", cls), archive, given, progress=progress, options=options)
        return cast("list[Self]", made)

    @classmethod
    def build_part(
        cls,
        archive: ArchiveLike,
        path: str | Path = ".retr",
        *,
        part: str,
        encoder: str | BaseEncoder | None = None,
        progress: bool = False,
        **options: Any,
    ) -> PartReport:
        """Embed one part of an archive, for machines that share a disk; `merge` makes an index of all.

        A file's part is told by its path, so every machine lists the archive by itself. A part that was stopped goes on
        where it was, and one that is built again embeds what is new or changed.

        Parameters
        ----------
        archive
            As in `build`, but no list: a folder, a container, a table of paths, a URL.
        path
            The index that is to be made or brought up to date; the parts lie beside it, in ``NAME.parts``.
        part
            ``"3/8"``: the third of eight.
        encoder, progress, options
            As in `build`, the same for all parts.

        Returns
        -------
        PartReport
            What was done.

        Raises
        ------
        UsageError
            As `build`; or it is no part, or an option is of this process alone.
        IndexLockedError
            Another process is building the part.

        Examples
        --------
        >>> import tempfile
        >>> from retr import Index
        >>> from retr.sample import sample_encoder, sample_index
        >>> archive = sample_index().path.parent / "healthy"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("1/2", "2/2"):
        ...         _ = Index.build_part(archive, f"{folder}/i", part=part, encoder=sample_encoder())
        ...     len(Index.merge(f"{folder}/i"))
        12
        """
        from retr.retrieval.building import build_part

        return build_part(archive, index_folder(path), encoder, part, progress=progress, options=options)

    @classmethod
    def merge(cls, path: str | Path = ".retr", *, progress: bool = False) -> Self:
        """Make an index of the parts that `build_part` made, or bring it up to date with them, in one commit.

        The archive is listed once more, and tables of labels are read; the encoder is not loaded. The index is what
        `build` would have made in one process. A process killed in it leaves the index as it was.

        Parameters
        ----------
        path
            The index; its parts go when they are merged.
        progress
            Show progress on standard error.

        Returns
        -------
        Index
            Open; ``report`` says what was done.

        Raises
        ------
        UsageError
            A part is missing, or was built of another archive or otherwise than the others.
        EncoderMismatchError
            Parts were built with different encoders, or with another one than the index.

        Examples
        --------
        >>> from retr import Index
        >>> from retr.sample import sample_encoder, sample_index
        >>> index = sample_index()
        >>> _ = Index.build_part(index.path.parent, index.path, part="1/1", encoder=index.encoder)
        >>> Index.merge(index.path).report.unchanged
        24
        """
        from retr.retrieval.building import merge_parts

        made: Any = merge_parts(cast("Any", cls), index_folder(path), progress=progress)
        return cast("Self", made)

    @classmethod
    def pull(cls, address: str, path: str | Path = ".retr", *, replace: bool = False, progress: bool = False) -> Self:
        """Bring an index down from an object store, or a copy of it up to date, and open it; see `push`.

        Only files that are not here travel. Readers of the copy see the state of before until all is here and was found
        to be as it was written; a pull that was stopped goes on.

        Parameters
        ----------
        address
            ``s3://BUCKET/PREFIX``.
        path
            The index folder to make or to bring up to date.
        replace
            Also go over a copy that was changed since it was pulled or pushed.
        progress
            Show progress on standard error.

        Raises
        ------
        UsageError
            Another index lies here, or this copy was changed since.
        IndexNotFoundError
            None lies at the address.
        IndexCorruptError
            A file there is not as it was written; the copy is as it was.

        Examples
        --------
        >>> from retr import Index
        >>> Index.pull("https://example.org", "copy.retr")
        Traceback (most recent call last):
        ...
        retr.index.errors.UsageError: an index is pushed to s3://BUCKET/PREFIX, got: 'https://example.org'; ...
        """
        from retr.retrieval.stores import pull

        pull(address, path, replace=replace, progress=progress)
        return cast("Self", cast("Any", cls).open(path))

    @property
    def sets(self) -> Sets:
        """Named sets of rows, with labels and the questions that found them; see `retr.retrieval.sets.sets.Sets`.

        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2)
        >>> index.sets.save("to discuss", hits.ids, question=hits, author="anna").ids
        ('healthy/P11-right.png', 'healthy/P09-left.png')
        >>> index.sets.names()
        ['to discuss']
        """
        from retr.retrieval.sets.sets import Sets

        return Sets(cast("IndexLike", self))
