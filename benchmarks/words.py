"""Search by words of captions: ``python -m retr.benchmarks.words --data FOLDER --work FOLDER``.

The folder holds pictures and ``labels.csv`` with their captions, separated by ``||`` (Flickr8k: five each). Of each
picture one caption is kept to ask with, and the others are indexed. A bridge from words to the vectors of ``lite`` is
fitted on every second picture; the others are asked for, among themselves: by words, by vectors, and by both fused.
Words are compared with rank_bm25 on the same terms, and the cost of scoring is measured on synthetic reports.
"""

from __future__ import annotations

import argparse
import csv
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retr import Index, Query
from retr.benchmarks.record import record
from retr.retrieval.stats.intervals import mean_interval
from retr.retrieval.stats.paired import paired_difference
from retr.retrieval.words.analysis import terms
from retr.retrieval.words.postings import K1, B, Bm25, Postings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ASKED, DEPTHS, DEEP = "part = 'asked'", (1, 5, 10), 100
WAYS: dict[str, dict[str, Any]] = {
    "words": {"in_": "indexed"},
    "vectors": {},
    "fused, vectors 0.5": {"in_": "indexed", "fuse": 0.5},
    "fused, vectors 0.2": {"in_": "indexed", "fuse": 0.2},
}


def build(data: Path, work: Path) -> Index:
    """Index the pictures with one caption apart, and fit a bridge on every second."""
    table = work / "captions.csv"
    with (data / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "part", "asked", "indexed"])
        for number, row in enumerate(rows):
            captions = [caption.strip() for caption in row["captions"].split("||")]
            asked = captions.pop(number % len(captions))
            writer.writerow([row["path"], ("asked", "fit")[number % 2], asked, " || ".join(captions)])
    index = Index.build(data, work / "words.retr", encoder="lite", metadata=table)
    index.align("indexed", where="part = 'fit'")
    return index


def ranks(index: Index, ids: Sequence[str], texts: Sequence[str], **options: Any) -> NDArray[np.float64]:
    """Return the rank at which each text finds its own picture, infinite beyond `DEEP`."""
    answers = index.search([Query.text(text) for text in texts], k=DEEP, where=ASKED, columns=[], **options)
    found = [
        answer.ids.index(own) + 1 if own in answer.ids else np.inf for own, answer in zip(ids, answers, strict=True)
    ]
    return np.array(found, np.float64)


def text_to_image(index: Index) -> dict[str, Any]:
    """Measure all ways, and fusion against each alone, with intervals over pictures."""
    table = index.table(["id", "asked"], where=ASKED)
    ids, texts = table["id"].to_pylist(), table["asked"].to_pylist()
    groups = np.arange(len(ids))
    found = {name: ranks(index, ids, texts, **options) for name, options in WAYS.items()}
    figures: dict[str, Any] = {"questions": len(ids)}
    for name, rank in found.items():
        for depth in DEPTHS:
            one = mean_interval((rank <= depth).astype(np.float64), groups)
            figures[f"{name}: recall@{depth}"] = f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
        figures[f"{name}: mean reciprocal rank"] = round(float((1 / rank).mean()), 4)
    for fused in (name for name in WAYS if name.startswith("fused")):
        for alone in ("words", "vectors"):
            for depth in DEPTHS:
                before, after = ((found[name] <= depth).astype(np.float64) for name in (alone, fused))
                one = paired_difference(before, after, groups)
                figures[f"{fused} less {alone}: recall@{depth}"] = (
                    f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
                )
    return figures


def agreement(index: Index) -> dict[str, Any]:
    """Compare all scores of all questions with rank_bm25: as it is, and with the inverse frequencies of Lucene."""
    try:
        reference = import_module("rank_bm25")
    except ImportError:
        return {"rank_bm25": "not installed"}
    table = index.table(["asked", "indexed"])
    texts = table["indexed"].to_pylist()
    documents = [[term.text for term in terms(text)] for text in texts]
    mine = Bm25(Postings().with_texts(texts), np.ones(len(texts), bool))
    theirs = reference.BM25Okapi(documents, k1=K1, b=B)
    lucene = reference.BM25Okapi(documents, k1=K1, b=B)
    for term in lucene.idf:
        many = sum(term in document for document in map(set, documents))
        lucene.idf[term] = np.log(1 + (len(texts) - many + 0.5) / (many + 0.5))
    overlap, first, furthest = [], [], 0.0
    for text in table["asked"].to_pylist():
        asked = [term.text for term in terms(text)]
        own, other = mine.scores(asked), theirs.get_scores(asked)
        # rank_bm25 keeps the factor k1 + 1, which Lucene left out
        furthest = max(furthest, float(np.abs(own - lucene.get_scores(asked) / (K1 + 1)).max()))
        mine_first, their_first = (np.argsort(-scores, kind="stable")[:10] for scores in (own, other))
        overlap.append(len(set(mine_first) & set(their_first)) / 10)
        first.append(mine_first[0] == their_first[0])
    return {
        "rank_bm25: questions": len(overlap),
        "rank_bm25: largest difference of a score, with Lucene's inverse frequencies": f"{furthest:.1e}",
        "rank_bm25 with its own: shared among the first ten": round(float(np.mean(overlap)), 4),
        "rank_bm25 with its own: the same first": round(float(np.mean(first)), 4),
    }


def cost(rows: int, words: int = 40, vocabulary: int = 20_000) -> dict[str, Any]:
    """Measure reading, storing and scoring synthetic reports whose words are as frequent as Zipf says."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, vocabulary + 1)
    drawn = rng.choice(vocabulary, (rows, words), p=shares / shares.sum())
    texts = [" ".join(f"w{word}" for word in row) for row in drawn.tolist()]
    begun = time.process_time()
    postings = Postings().with_texts(texts)
    read = time.process_time() - begun
    begun = time.process_time()
    bm25 = Bm25(postings, np.ones(rows, bool))
    turned = time.process_time() - begun
    asked = [[f"w{word}" for word in rng.choice(vocabulary, 3, p=shares / shares.sum())] for _ in range(50)]
    bm25.scores(asked[0])
    begun = time.process_time()
    for question in asked:
        bm25.scores(question)
    scored = (time.process_time() - begun) / len(asked)
    return {
        f"{rows} reports of {words} words: read once, CPU seconds": round(read, 2),
        f"{rows} reports of {words} words: opened by a process, CPU seconds": round(turned, 2),
        f"{rows} reports of {words} words: a question of three words, CPU milliseconds": round(scored * 1e3, 2),
        f"{rows} reports of {words} words: bytes a report": round(len(postings.to_bytes()) / rows),
    }


def main() -> None:
    """Measure all, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of pictures with labels.csv")
    parser.add_argument("--work", type=Path, required=True, help="where the index is kept from run to run")
    parser.add_argument("--rows", type=int, default=100_000, help="synthetic reports")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    index = build(given.data, given.work)
    figures = {"data": given.data.name, **text_to_image(index), **agreement(index), **cost(given.rows)}
    note = "Intervals of 95 % over pictures, those of differences paired. Other work ran on the machine: CPU time."
    record("words", figures, command=f"python -m retr.benchmarks.words --data {given.data.name} --work DIR", note=note)


if __name__ == "__main__":
    main()
