"""``retr index import`` and ``retr index export``: exchange vectors and metadata with other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retr.cli._options import (
    INDEX_DIR,
    DtypeOption,
    GroupOption,
    IndexOption,
    JsonOption,
    LoadOptions,
    TypeOption,
    WhereOption,
    column_types,
    find_index,
    unfold,
)
from retr.cli._output import Output


@unfold
def import_(
    *,
    vectors: Annotated[
        Path, typer.Option("--vectors", metavar="FILE", help="A .npy file of floats, one row a picture.")
    ],
    metadata: Annotated[
        Path,
        typer.Option(
            "--metadata", metavar="FILE", help="CSV, TSV or Parquet table of the same rows, with a column of ids."
        ),
    ],
    index: IndexOption = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", help="What the vectors are of: an encoder of `retr encoders ls`, or a name of your own."
        ),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint", help="What tells the weights of your own encoder from others: a version, or a sha256."
        ),
    ] = None,
    similarity: Annotated[
        str | None, typer.Option("--similarity", help="How vectors of your own encoder are compared: cosine or dot.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id-column", metavar="COLUMN", help="The table's column of ids; by default id.")
    ] = None,
    column_type: TypeOption = None,
    group: GroupOption = None,
    dtype: DtypeOption = None,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """Make an index of vectors that were made elsewhere.

    With an encoder of your own, known by its name and its fingerprint, the index answers by id and by vector. What
    `retr index export` wrote says by itself whose vectors they are, and comes back as it was.

    Example: retr index import --vectors v.npy --metadata t.parquet --encoder my-net --fingerprint run-7
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    made = Index.from_vectors(
        vectors,
        metadata,
        index or Path(INDEX_DIR),
        encoder=encoder,
        fingerprint=fingerprint,
        similarity=similarity,
        id_column=id_column,
        group=group,
        types=column_types(column_type),
        dtype=dtype,
        **loading.options,
    )
    held = made.info()
    out.record({key: held[key] for key in ("rows", "encoder", "dim", "dtype", "similarity", "group", "columns")})
    for note in made.report.notes if made.report is not None else ():
        out.note(note)


def export(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    *,
    index: IndexOption = None,
    where: WhereOption = None,
    form: Annotated[
        str,
        typer.Option(
            "--as", help="npy (vectors.npy and metadata.parquet), parquet, lance, datasets, webdataset or fiftyone."
        ),
    ] = "npy",
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="The column of classes, for fiftyone.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Write vectors and metadata for other programs.

    Vectors are written as they are stored, row for row with their metadata; `retr index import` reads them again.

    Example: retr index export out/ --where "label = 'glaucoma'"
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    rows = Index.open(find_index(index)).export(folder, where=where, form=form, label=label)  # type: ignore[arg-type]
    out.record({"rows": rows, "folder": str(folder)})
