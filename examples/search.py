"""Index the photographs shipped here and ask in every way: ``python examples/search.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from retr import Hit, Hits, Index, Query

ARCHIVE = Path(__file__).parent / "hrf45"


def show(hits: Hits) -> None:
    """Print the hits of one question."""
    print(hits.query, "" if hits.note is None else f"({hits.note})")
    for hit in hits:
        print(f"  {hit.rank}  {hit.score:.4f}  {hit.id}  {hit.metadata['label']}")


def main(path: Path) -> None:
    """Build an index at ``path`` and search it."""
    index = Index.build(ARCHIVE, path, metadata=ARCHIVE / "labels.csv")
    print(len(index), "rows of", index.encoder.info.name)

    # one question gives its hits
    hits = index.search(id="glaucoma/05_g.jpg", k=3)
    show(hits)
    show(index.search(image=ARCHIVE / "healthy/05_h.jpg", k=3, where="label = 'glaucoma'"))
    between = Query.id("glaucoma/05_g.jpg") + Query.id("healthy/05_h.jpg") * 0.5
    show(index.search(between, k=3))

    # several give a list
    both = index.search([Query.id("glaucoma/05_g.jpg"), Query.id("healthy/05_h.jpg")], k=1)
    best: list[Hit] = [hit for answer in both for hit in answer]
    print([hit.id for hit in best])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "fundus.retr")
