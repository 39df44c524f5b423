"""The public `Index`: an archive of images, searchable by picture, by words, by row and by vector.

`Index` joins what the lower layers keep apart: the store (vectors and metadata at rest), the encoder it was built with
(found by the name the manifest records, loaded on first need, refused when it is not the same), the build pipeline and
the query algebra. A query by row id or by vector loads no encoder at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from retr.index.machine.home import index_folder
from retr.index.options import documents, taken
from retr.index.store import Store
from retr.retrieval._deferred import Deferred
from retr.retrieval.answering import find_hits
from retr.retrieval.building import build_indexes
from retr.retrieval.contents import encoder_key
from retr.retrieval.encoders.index_encoder import mismatch, require_loaded, require_same
from retr.retrieval.encoders.registry import require_options
from retr.retrieval.index_encoders import IndexEncoders
from retr.retrieval.ingest.options import BuildOptions
from retr.retrieval.ingest.report import BuildReport
from retr.retrieval.query_arguments import gather_queries
from retr.retrieval.search_options import SearchOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.archive.opening import ArchiveLike
    from retr.retrieval.archive.table_like import Table
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.hits import Hits
    from retr.retrieval.ingest.options import BuildKeywords
    from retr.retrieval.query import Query
    from retr.retrieval.search_options import SearchKeywords


class Index(IndexEncoders, Deferred):
    """A searchable archive: open one with `Index.open`, make one with `Index.build`.

    >>> from retr.sample import sample_index
    >>> index = sample_index()
    >>> index.search(image=index.path.parent / "healthy/P01-left.png", k=2).ids
    ['healthy/P11-right.png', 'healthy/P09-left.png']
    """

    def __init__(
        self, store: Store, *, encoder: BaseEncoder | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(store, options)
        self.store.place(self._options.get("device", "auto"))
        if encoder is not None:
            require_loaded(encoder)
            from retr.retrieval.transforms.transform import without_transform

            encoder = without_transform(encoder)
            require_same(store.manifest.encoder.own, encoder.info)
            self._loaded.put(encoder_key(store), encoder)

    # making and opening

    @overload
    @classmethod
    def build(
        cls,
        archive: ArchiveLike,
        path: str | Path = ".retr",
        *,
        encoder: str | BaseEncoder | None = None,
        progress: bool = False,
        ray: str | None = None,
        **options: Unpack[BuildKeywords],
    ) -> Self: ...

    @overload
    @classmethod
    def build(
        cls,
        archive: ArchiveLike,
        path: str | Path = ".retr",
        *,
        encoder: str | BaseEncoder | None = None,
        progress: bool = False,
        ray: str | None = None,
        **options: Any,
    ) -> Self: ...

    @classmethod
    @documents(BuildOptions, further="loading")
    def build(
        cls,
        archive: ArchiveLike,
        path: str | Path = ".retr",
        *,
        encoder: str | BaseEncoder | None = None,
        progress: bool = False,
        ray: str | None = None,
        **options: Any,
    ) -> Self:
        """Embed a folder of images into an index, or bring an existing index up to date with its folder.

        Parameters
        ----------
        archive
            Folder of images, walked recursively; a container, a table of paths, one image, a URL; or a list of paths,
            whose ids are relative to the deepest folder that holds them all (as before, where the index was built so).
        path
            The index folder to make or update.
        encoder
            A name of ``retr encoders ls``, with options behind commas if you like (``"lite,feature=layers"``), or a
            loaded encoder; by default ``"lite"`` for a new index and the recorded one for an existing index.
        progress
            Show progress on standard error.
        ray
            Embed on the machines of a Ray cluster that see the archive under the same name: ``HOST:PORT``, or
            ``"auto"`` for the one that runs here (extra ``ray``). The index is the same; this process alone writes it.
        options
            Fields of `BuildOptions`.
        loading
            Further options of ``load_encoder``: ``weights=``, ``device=``, ``precision=`` ...

        Returns
        -------
        Index
            Open on what was committed; ``index.report`` says what was done.

        Raises
        ------
        EncoderMismatchError
            The index was built with another encoder, or with other weights under the same name.
        IndexLockedError
            Another process is writing to the index.
        UsageError
            The archive is empty or is no folder, or an option contradicts the index.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> archive = index.path.parent / "healthy"
        >>> built = Index.build(archive, index.path.with_name("built.retr"), encoder=index.encoder)
        >>> len(built), built.report.embedded
        (12, 12)
        """
        return build_indexes(cls, archive, {index_folder(path): encoder}, progress=progress, options=options, ray=ray)[
            0
        ]

    @classmethod
    def open(
        cls,
        path: str | Path = ".retr",
        *,
        encoder: str | BaseEncoder | None = None,
        ray: str | None = None,
        shard_seconds: float = 60.0,
        **options: Any,
    ) -> Self:
        """Open an index for searching; nothing is loaded but its manifest.

        Parameters
        ----------
        path
            The index folder.
        encoder
            Optional; must be the one the index was built with. By default the recorded one is loaded on first need.
        ray
            Search on the machines of a Ray cluster that see the index under the same name: ``HOST:PORT`` or ``"auto"``.
            Each shard is held by a process there until `close`; answers are the same (`retr.index.scatter`).
        shard_seconds
            How long one of these may take to answer.
        options
            Where its weights are and how it should run: ``weights=``, ``text_model=``, ``precision=``; and ``device=``,
            where the encoder and every search run (see `retr.index.gpu.devices`; ``index.store.place`` moves the
            searches alone).

        Raises
        ------
        IndexNotFoundError, IndexCorruptError, FormatVersionError
            There is no index, or it cannot be read.
        EncoderMismatchError
            ``encoder`` is not the one the index was built with.
        UsageError, RetrError
            An option is not one of the encoder's; there is no such cluster.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> Index.open(index.path).search(id="healthy/P01-left.png", k=1).ids
        ['healthy/P11-right.png']
        """
        store = Store.open(path)
        require_options(store.manifest.encoder.name, options)
        if isinstance(encoder, str):
            if encoder != store.manifest.encoder.name:
                raise mismatch(store.manifest.encoder.name, encoder)
            encoder = None
        opened = cls(store, encoder=encoder, options=options)
        if ray is not None:
            from retr.retrieval.cluster.holders import Holders

            store.remote = Holders(ray, store, shard_seconds)
        return opened

    @classmethod
    def from_vectors(
        cls,
        vectors: ArrayLike | str | Path,
        table: Table,
        path: str | Path = ".retr",
        *,
        encoder: str | BaseEncoder | EncoderInfo | None = None,
        **asked: Any,
    ) -> Self:
        """Make an index of vectors that were made elsewhere; a new folder.

        Parameters
        ----------
        vectors
            Floats ``(n, dim)``: an array, a tensor, or a ``.npy`` file.
        table
            The metadata, row for row, with unique ids in the column ``id``: a table of pyarrow, pandas or polars, a
            dict of columns, or a CSV, TSV or Parquet file.
        path
            The index folder to make.
        encoder
            What the vectors are of: a name of ``retr encoders ls`` or a loaded encoder; or a name of your own and
            ``fingerprint=``, what tells its weights from others. The index then answers by id and by vector. Vectors of
            `export` say it themselves.
        asked
            ``fingerprint``; ``similarity``, ``"cosine"`` (the default) or ``"dot"``, of a model of your own;
            ``id_column``; ``group``, ``types`` and ``dtype`` as in `build`; further options of ``load_encoder``.

        Returns
        -------
        Index
            Open on what was made; ``index.report.notes`` says what was decided about columns.

        Raises
        ------
        UsageError
            Vectors or ids cannot be meant, or do not fit each other or the encoder; nothing is written.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = Index.from_vectors(
        ...         [[1.0, 0.0], [0.0, 1.0]], {"id": ["a", "b"]}, f"{folder}/i", encoder="mine", fingerprint="1"
        ...     )
        ...     index.search(vector=[3.0, 1.0], k=1).ids
        ['a']
        """
        from retr.retrieval.importing import import_vectors

        loaded, notes = import_vectors(vectors, table, path, encoder=encoder, **asked)
        index = cls(Store.open(path), encoder=loaded)
        index.report = BuildReport(rows=len(index), notes=tuple(notes))
        return index

    # searching

    @overload
    def search(self, query: Sequence[Query], **options: Unpack[SearchKeywords]) -> list[Hits]: ...

    @overload
    def search(self, *, vectors: ArrayLike, **options: Unpack[SearchKeywords]) -> list[Hits]: ...

    @overload
    def search(
        self,
        query: Query | None = None,
        *,
        image: Any = None,
        text: str | None = None,
        id: str | None = None,
        vector: ArrayLike | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Hits: ...

    @documents(SearchOptions)
    def search(
        self,
        query: Query | Sequence[Query] | None = None,
        *,
        image: Any = None,
        text: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's own word, and the command line's
        vector: ArrayLike | None = None,
        vectors: ArrayLike | None = None,
        **options: Unpack[SearchKeywords],
    ) -> Hits | list[Hits]:
        """Find the ``k`` most similar rows.

        One of ``query``, ``image``, ``text``, ``id``, ``vector`` and ``vectors`` is given; mixtures are a `retr.Query`.

        Parameters
        ----------
        query
            A query, or several: then a list of `Hits` comes back.
        image
            A path, the bytes of a file, a file open in binary mode, a PIL image, a `Picture`, a ``pydicom.Dataset``, or
            an array or a tensor of one picture; see `Query.image`.
        text, id
            Words; the id of an indexed row.
        vector, vectors
            A float vector ``(dim,)``; several, ``(n, dim)``: then a list of `Hits` comes back.
        options
            Fields of `SearchOptions`.

        Returns
        -------
        Hits | list[Hits]
            `Hits` for one question; a list of them, in order, for several.

        Raises
        ------
        UsageError
            ``k`` below 1, an unknown id or column, a group value that is not known.
        FilterError
            A ``where`` that cannot be read.
        NoTextSideError
            Words for an encoder without a text side, and no bridge (`retr align`).

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> hits = index.search(id="healthy/P01-left.png", k=2, where="age < 50", exclude_same="patient")
        >>> hits.ids
        ['healthy/P09-left.png', 'healthy/P05-left.png']
        >>> file = index.path.parent / "healthy/P01-left.png"
        >>> index.search(image=file, k=1, one_per="patient", columns=["label"])[0].metadata
        {'label': 'healthy'}
        """
        queries, single = gather_queries(query, image=image, text=text, id=id, vector=vector, vectors=vectors)
        hits = find_hits(self.snapshot(), queries, taken(SearchOptions, options, "search"))
        return hits[0] if single else hits

    # changing

    @documents(BuildOptions)
    def add(
        self,
        source: ArchiveLike,
        *,
        name: str | None = None,
        progress: bool = False,
        **options: Unpack[BuildKeywords],
    ) -> BuildReport:
        """Embed a further folder, or one image.

        The same name again brings that part up to date, as `build` does for the first archive.

        Parameters
        ----------
        source
            A folder, container, URL or image, or a list of paths.
        name
            What its rows' ids begin with, before a ``/``; by default the folder's name.
        progress
            Show progress on standard error.
        options
            Fields of `BuildOptions`.

        Raises
        ------
        UsageError
            The name cannot be part of an id, ids of the index begin with it already, or an option contradicts what
            the index was built with.

        Examples
        --------
        >>> from retr.sample import sample_index
        >>> index = sample_index()
        >>> report = index.add(index.path.parent / "healthy", name="again")
        >>> report.reused, "again/P01-left.png" in index
        (12, True)
        """
        from retr.retrieval.ingest.build import add

        report = add(source, self.path, lambda: self.encoder, name=name, progress=progress, **options)
        self.refresh()
        return report
