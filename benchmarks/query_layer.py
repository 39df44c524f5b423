"""What the query layer reaches on real images: ``python -m retr.benchmarks.query_layer --data FOLDER``.

``FOLDER`` holds the sets ``odir5k``, ``flickr8k_1000``, ``cxr_kermany`` and ``cxr_hannover243``, each with
``labels.csv``. Everything goes through the library's own calls, on vectors of ``--encoder``; those are kept in
``--work`` between runs. Indexes are as a build leaves them: with the encoder's transform where it has one.

*Classification*: the eyes of ``odir5k`` with one diagnosis and at least 15 eyes a diagnosis (21 classes) are split
by patient, half an index, half queries whose patients it has never seen; once for each of ``--seeds``.
*Out of archive*: the other sets against that index. *Text*: 800 photographs of ``flickr8k_1000`` with five captions
each fit a bridge, the captions of the other 200 look for their photographs among those 200.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retr.benchmarks.record import record
from retr.index.store import Store
from retr.index.vectors import unit
from retr.retrieval.classify import methods, probe
from retr.retrieval.classify.answers import answer_pictures
from retr.retrieval.index import Index
from retr.retrieval.raw_vectors import nearest_own, placed
from retr.retrieval.stats.metrics import any_hit_at, ece, precision_at
from retr.retrieval.text import align
from retr.retrieval.transforms.fitting import Transforms, Wanted, finish, is_transformed
from retr.retrieval.transforms.transform import NOTE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder

SETS = ("odir5k", "flickr8k_1000", "cxr_kermany", "cxr_hannover243")
NOTHING: NDArray[np.int64] = np.empty(0, dtype=np.int64)


class Set:
    """One set of images: its table and its vectors, embedded once."""

    def __init__(self, folder: Path, work: Path, encoder: Any) -> None:
        with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
            self.rows = list(csv.DictReader(stream))
        of = hashlib.sha256(repr(encoder.info.identity).encode()).hexdigest()[:8]
        kept = work / f"{folder.name}-{encoder.info.name}-{of}.npy"
        if not kept.exists():
            vectors = unit(encoder.encode_images([folder / row["path"] for row in self.rows]))
            np.save(kept, vectors)
        self.vectors: NDArray[np.float32] = np.load(kept)

    def store(self, path: Path, encoder: BaseEncoder, keep: list[int], *, group: str | None = None) -> Store:
        """Make an index of some of the rows."""
        columns = ["path", *(name for name in self.rows[0] if name not in {"path", "source"})]
        table = {name: [self.rows[i][name] or None for i in keep] for name in columns}
        return write_index(path, encoder, pa.table({"id": table["path"], **table}), self.vectors[keep], group)


def write_index(
    path: Path, encoder: BaseEncoder, table: pa.Table, vectors: NDArray[np.float32], group: str | None
) -> Store:
    """Make an index of the encoder's own vectors, with the transform that a build of them fits."""
    store = Store.create(path, encoder=encoder.info)
    with store.writer() as writer:
        if is_transformed(encoder):
            writer.note(NOTE, Wanted().to_json(), kind=Transforms())
        writer.append(table, vectors)
        writer.set_group(group)
        writer.commit()
        finish(writer)
        return writer.commit()


def classification(data: Set, others: dict[str, Set], encoder: BaseEncoder, work: Path, seed: int) -> dict[str, Any]:
    """Measure one split by patient."""
    counts = Counter(row["label"] for row in data.rows)
    single = [i for i, row in enumerate(data.rows) if row["label"] != "multiple" and counts[row["label"]] >= 15]
    patients = np.random.default_rng(seed).permutation(sorted({row["patient"] for row in data.rows}))
    inside = set(patients[: len(patients) // 2].tolist())
    asked = [i for i in single if data.rows[i]["patient"] not in inside]
    store = data.store(
        work / f"half{seed}.retr", encoder, [i for i in single if data.rows[i]["patient"] in inside], group="patient"
    )
    index = Index(store)
    measured, novelty = index.calibrate("label", alpha=0.1)
    store = index.store
    truth = [data.rows[i]["label"] for i in asked]
    exclude = [NOTHING] * len(asked)
    questions = placed(store, data.vectors[asked])
    nearest = store.search(questions, 5).rows
    labels = np.array(store.table(["label"])["label"].to_pylist())
    hits = labels[nearest] == np.array(truth)[:, None]
    trained = probe.find_probe(store, "label")
    assert trained is not None
    figures: dict[str, Any] = {
        "indexed": len(store),
        "asked": len(asked),
        "classes": len(trained.classes),
        "neighbours_precision_at_1": round(float(precision_at(hits, 1).mean()), 4),
        "neighbours_any_hit_at_5": round(float(any_hit_at(hits, 5).mean()), 4),
    }
    ways: tuple[methods.Method, ...] = (methods.ByNeighbours(store, "label"), methods.ByProbe(trained, store))
    for method in ways:
        answers = answer_pictures(store, method, questions, truth, exclude, own=data.vectors[asked])
        table = [dict(zip(one.classes, one.probabilities, strict=True)) for one in answers]
        chance = np.array([[row[name] for name in method.classes] for row in table])
        codes = np.array([method.classes.index(name) for name in truth])
        stated = next(one for one in measured if one.method == method.key)
        covered = [name in (one.prediction_set or ()) for name, one in zip(truth, answers, strict=True)]
        evidence, _ = method.evidence(questions, exclude)
        figures[method.key.partition(":")[0]] = {
            **probe.measure_probe(chance, codes),
            "ece_before": round(ece(method.uncalibrated.probabilities(evidence), codes), 4),
            "ece_after": round(ece(chance, codes), 4),
            "coverage": round(float(np.mean(covered)), 4),
            "coverage_stated": stated.coverage,
            "set_size": round(float(np.mean([len(one.prediction_set or ()) for one in answers])), 2),
            "abstained": round(float(np.mean([one.abstain is not None for one in answers])), 4),
        }
    for name, vectors in {
        "held_out": data.vectors[asked],
        **{name: one.vectors for name, one in others.items()},
    }.items():
        scores = nearest_own(store, vectors, [NOTHING] * len(vectors)).scores[:, 0]
        figures[f"{name}_called_unlike"] = round(float(np.mean([bool(novelty.unlike(one)) for one in scores])), 4)
    return figures


def text(data: Set, encoder: BaseEncoder, work: Path, seed: int, sentences: Any) -> dict[str, Any]:
    """Measure one split of captioned photographs."""
    order = np.random.default_rng(seed).permutation(len(data.rows))
    store = data.store(work / f"captions{seed}.retr", encoder, list(range(len(data.rows))))
    part = np.full(len(data.rows), "held", dtype="<U4")
    part[order[:800]] = "fit"
    with store.writer() as writer:
        writer.replace_columns(pa.table({"id": store.table(["id"])["id"], "part": part}))
        store = writer.commit()
    bridge = align.fit_bridge(store, "captions", where="part = 'fit'", text_encoder=sentences)
    held = align.collect_texts(store, "captions", where="part = 'held'")
    found = store.search(bridge.encode_texts(held.texts), 10, where="part = 'held'").rows
    hits = found == held.rows[held.owner][:, None]
    return {
        "texts": len(held.texts),
        "pool": len(held.rows),
        "recall_at_1": round(float(any_hit_at(hits, 1).mean()), 4),
        "recall_at_10": round(float(any_hit_at(hits, 10).mean()), 4),
        "stated_recall_at_10": bridge.figures["recall_at_10"],
        "ridge": bridge.figures["ridge"],
        "level": bridge.figures["level"],
    }


class Sentences:
    """A BERT sentence encoder from a folder in the layout of transformers: the mean of its last hidden states."""

    def __init__(self, folder: Path) -> None:
        from retr.index.encoder import EncoderInfo
        from retr.retrieval.encoders.torchvision_import import ensure_torchvision

        ensure_torchvision()
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        self._model = AutoModel.from_pretrained(str(folder), trust_remote_code=False).eval()
        self._known: dict[str, NDArray[np.float32]] = {}
        self.info = EncoderInfo(
            name=folder.name,
            dim=self._model.config.hidden_size,
            similarity="cosine",
            modality="text",
            text=True,
            weights_sha256="unknown",
            preprocessing="mean of the last hidden states",
        )

    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed texts, each once: float32 ``(n, dim)``."""
        import torch

        new = sorted(set(texts) - set(self._known), key=len)
        with torch.inference_mode():
            for start in range(0, len(new), 64):
                part = new[start : start + 64]
                batch = self._tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="pt")
                hidden = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"][..., None]
                means = ((hidden * mask).sum(1) / mask.sum(1)).numpy().astype(np.float32)
                self._known.update(zip(part, means, strict=True))
        return np.stack([self._known[text] for text in texts])


def main() -> None:
    """Measure, print and write the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--work", type=Path, help="folder to keep embedded sets in")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--seeds", type=int, default=3, help="how many splits")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=("classification", "text"), default=["classification", "text"])
    parser.add_argument("--sentences", type=Path, help="folder of a sentence encoder, to embed the captions with")
    options = parser.parse_args()
    from retr.retrieval.encoders.registry import load_encoder

    encoder = load_encoder(options.encoder)
    facts: dict[str, Any] = {"encoder": options.encoder}
    command = f"python -m retr.benchmarks.query_layer --data DATA --encoder {options.encoder} --seeds {options.seeds}"
    command += f" --first-seed {options.first_seed}" if options.first_seed else ""
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        scratch, seeds = Path(temporary), range(options.first_seed, options.first_seed + options.seeds)
        if "classification" in options.parts:
            sets = {name: Set(options.data / name, work, encoder) for name in SETS}
            asked = sets.pop("odir5k")
            runs = [classification(asked, sets, encoder, scratch, seed) for seed in seeds]
            record("query_layer", {**facts, "splits": runs}, command=f"{command} --parts classification")
        if "text" in options.parts:
            captioned = Set(options.data / "flickr8k_1000", work, encoder)
            sentences = None if options.sentences is None else Sentences(options.sentences)
            facts["text_encoder"] = "words and letter groups" if sentences is None else sentences.info.name
            bridges = [text(captioned, encoder, scratch, seed, sentences) for seed in seeds]
            name = "query_layer_text" if sentences is None else "query_layer_sentences"
            given = "" if sentences is None else f" --sentences {sentences.info.name}"
            record(name, {**facts, "splits": bridges}, command=f"{command} --parts text{given}")


if __name__ == "__main__":
    main()
