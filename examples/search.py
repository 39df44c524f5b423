"""Index the photographs shipped here and ask in every way: ``python examples/search.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from retr import (
    BuildReport,
    EncoderMismatchError,
    EncoderNotFoundError,
    FilterError,
    FormatVersionError,
    Hit,
    Hits,
    ImageReadError,
    Index,
    IndexCorruptError,
    IndexLockedError,
    IndexNotFoundError,
    MissingExtraError,
    NoTextSideError,
    Picture,
    Query,
    RetrError,
    UnknownIdError,
    UsageError,
    WeightsError,
    load_encoder,
    read_picture,
)

ARCHIVE = Path(__file__).parent / "hrf45"

# What a server would answer with; the first that an error is one of counts.
STATUS: list[tuple[int, tuple[type[RetrError], ...]]] = [
    (404, (UnknownIdError, IndexNotFoundError)),
    (415, (ImageReadError,)),
    (400, (FilterError, NoTextSideError, UsageError)),
    (503, (IndexLockedError,)),
    (500, (EncoderMismatchError, EncoderNotFoundError, WeightsError, MissingExtraError)),
    (500, (IndexCorruptError, FormatVersionError)),
]


def status_of(error: RetrError) -> int:
    """Return the HTTP status of an error."""
    return next((status for status, kinds in STATUS if isinstance(error, kinds)), 500)


def show(hits: Hits) -> None:
    """Print the hits of one question."""
    print(hits.query, "" if hits.note is None else f"({hits.note})")
    for hit in hits:
        print(f"  {hit.rank}  {hit.score:.4f}  {hit.id}  {hit.metadata['label']}")


def main(path: Path) -> None:
    """Build an index at ``path`` and search it."""
    encoder = load_encoder("lite")
    index = Index.build(ARCHIVE, path, encoder=encoder, metadata=ARCHIVE / "labels.csv")
    report: BuildReport | None = index.report
    if report is not None:
        print(report.embedded, "pictures embedded with", encoder.info.name)

    # one question gives its hits
    hits = index.search(id="glaucoma/05_g.jpg", k=3)
    show(hits)
    show(index.search(image=ARCHIVE / "healthy/05_h.jpg", k=3, where="label = 'glaucoma'"))
    between = Query.id("glaucoma/05_g.jpg") + Query.id("healthy/05_h.jpg") * 0.5
    show(index.search(between, k=3))

    # a picture that is read once can be cut; the rows of the file it is of stay out
    picture: Picture = read_picture(ARCHIVE / "glaucoma/05_g.jpg")
    show(index.search(image=picture.crop(0.25, 0.25, 0.5, 0.5), k=3))

    # what is wrong is said in one line
    for where in ("label = 'glaucoma", "colour = 'red'"):
        try:
            index.search(id="glaucoma/05_g.jpg", where=where)
        except RetrError as error:
            print(status_of(error), error)

    # several give a list
    both = index.search([Query.id("glaucoma/05_g.jpg"), Query.id("healthy/05_h.jpg")], k=1)
    best: list[Hit] = [hit for answer in both for hit in answer]
    print([hit.id for hit in best])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "fundus.retr")
