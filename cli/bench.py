"""``retr bench``: run the evaluation protocols of published systems on any data with any encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from retr.cli._bench_data import DataOptions
from retr.cli._bench_output import show_cells, show_retizero
from retr.cli._options import (
    LabelSetOption,
    LoadOptions,
    SeparatorOption,
    unfold,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from retr.index.encoder import EncoderInfo
    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.labels.label_set import LabelSet

EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="An encoder of `retr encoders ls`; by default the protocol's own (`lite` for retizero), with --index its.",
    ),
]


@dataclass(frozen=True)
class Encoders:
    """Loads what a protocol needs: by name, or what built the indexes that were given.

    Attributes
    ----------
    name, loading, stores
        The name that was typed or the protocol's own; how it is loaded; the indexes.
    """

    name: str
    loading: LoadOptions
    stores: tuple[Store, ...]

    @classmethod
    def of(cls, typed: str | None, default: str, loading: LoadOptions, stores: tuple[Store, ...]) -> Encoders:
        """Choose the encoder's name; indexes must have been built by the one that was typed."""
        from retr.retrieval.encoders.index_encoder import mismatch

        for store in stores:
            if typed not in {None, store.manifest.encoder.name}:
                raise mismatch(store.manifest.encoder.name, typed or "")
        return cls(stores[0].manifest.encoder.name if stores else typed or default, loading, stores)

    def has(self, *names: str) -> bool:
        """Return whether the encoder is one of these, and no feature of it was chosen."""
        from retr.retrieval.encoders.registry import find_spec

        return find_spec(self.name)[0].card.name in names and "feature" not in self.loading.options

    def load(self, **chosen: str) -> BaseEncoder:
        """Load it with some options."""
        from retr.retrieval.encoders.registry import load_encoder

        return load_encoder(self.name, **{**self.loading.options, **chosen})

    def built(self, wanted: Callable[[EncoderInfo], bool], *, asked: bool = False) -> BaseEncoder:
        """Return the encoder of the first index that is wanted, else of the first.

        Its record is enough where nothing has to be embedded; where it is ``asked`` in words it is loaded.
        """
        from retr.retrieval.encoders.index_encoder import RecordedEncoder, load_recorded

        infos = [store.manifest.encoder.own for store in self.stores]
        info = next(filter(wanted, infos), infos[0])
        if asked:
            return load_recorded(None, info, self.loading.options)
        never = RecordedEncoder(info, lambda: load_recorded(None, info, self.loading.options))
        return cast("BaseEncoder", never)


@unfold
def retizero(
    *,
    source: DataOptions,
    encoder: EncoderOption = None,
    loading: LoadOptions,
    labels: LabelSetOption = None,
    class_map: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="MAP",
            help="Join public sets under one set of class names: retizero-14, or a JSON file. Each set is named: "
            "--data jsiec=FOLDER, and so are its --metadata, --label, --group.",
        ),
    ] = None,
    paper_set: Annotated[
        Path | None,
        typer.Option(
            "--paper-set",
            metavar="FILE",
            help='JSON with class counts of the paper\'s sets, from who holds them: {"EYE-15": {"Normal": 500, ...}}.',
        ),
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many images of a class.")] = 8000,
    least: Annotated[int, typer.Option("--least", help="Leave classes with fewer images out.")] = 1,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="CLASS", help="Leave this class out; repeats.")
    ] = None,
    no_clusters: Annotated[bool, typer.Option("--no-clusters", help="Leave the UMAP and HDBSCAN step out.")] = False,
) -> None:
    """Run RetiZero's retrieval protocol as published, and strictly.

    Published: similarity s/(s+d), clusters, the first of k+1 dropped. Strict: the encoder's own score, the query and
    its patient left out. With --labels also zero-shot, for encoders with words. The paper's numbers stand in their own
    column and are never mixed with this run's. A run that was interrupted goes on where it was.

    Example: retr bench retizero --data fundus --encoder lite --out result.json
    """
    from retr.retrieval.evaluation.protocols.class_map import load_map
    from retr.retrieval.evaluation.protocols.retizero import read_paper_sets, run
    from retr.retrieval.labels.label_set import load_labels

    stores = source.open(several=class_map is not None)
    by = None if class_map is None else load_map(class_map)
    if by is not None and labels is None:
        words: LabelSet | None = by.labels
    else:
        words = None if labels is None else load_labels(labels)
    sets = None if paper_set is None else read_paper_sets(paper_set)
    limits: dict[str, Any] = {"most": most, "least": least, "without": tuple(without or ())}
    images, which = source.read(stores, **limits) if by is None else source.unite(by, **limits), None
    encoders = Encoders.of(encoder, "lite", loading, stores)
    if stores:
        retrieving = encoders.built(lambda info: info.options.get("feature") == "retrieval")
        which = encoders.built(lambda info: info.text, asked=words is not None)
    else:
        # the authors retrieve and name with two features of one network
        two = encoders.has("retizero")
        retrieving = encoders.load(**({"feature": "retrieval"} if two else {}))
        which = encoders.load() if two and words is not None else None
    result = run(
        images,
        retrieving,
        text_encoder=which,
        labels=words,
        clustered=not no_clusters,
        paper_sets=sets,
        vectors=source.vectors(stores),
        seed=source.seed,
    )
    source.show(result, show_retizero)


@unfold
def flair(
    *,
    source: DataOptions,
    encoder: EncoderOption = None,
    loading: LoadOptions,
    labels: LabelSetOption = None,
    grades: Annotated[
        str | None,
        typer.Option(
            "--grades",
            metavar="A,B,C",
            help="The classes from the least grade to the most, for the published quadratic kappa.",
        ),
    ] = None,
) -> None:
    """Run FLAIR's evaluation: zero-shot, a linear probe, and a few shots.

    Zero-shot is by class prototypes; both are stated as ACA, kappa and macro F1, and as quadratic kappa where the order
    of the grades is declared: by --grades, or by a label set that is `ordered`. The probe runs with folds by image, as
    published, and with whole patients in a fold. With 1, 2, 4, 8 and 16 shots of each class, of other patients than
    those that are named, stated is the ACA of the probe, Tip-Adapter, SS-Text and LP+text, with intervals over draws.

    Example: retr bench flair --data messidor --encoder flair --labels labels.yaml --grades 0,1,2,3
    """
    from retr.retrieval.evaluation.protocols.flair import run
    from retr.retrieval.labels.label_set import load_labels

    stores = source.open()
    words = None if labels is None else load_labels(labels)
    images = source.read(stores)
    encoders = Encoders.of(encoder, "flair", loading, stores)
    probe = None
    if stores:
        named = encoders.built(lambda info: info.text, asked=words is not None)
        probe = encoders.built(lambda info: info.options.get("feature") == "backbone")
    else:
        named = encoders.load()
        probe = encoders.load(feature="backbone") if encoders.has("flair", "retizero") else None
    order = None if grades is None else [name.strip() for name in grades.split(",")]
    result = run(
        images,
        named,
        probe_encoder=probe,
        labels=words,
        grades=order,
        vectors=source.vectors(stores),
        seed=source.seed,
    )
    source.show(result, show_cells)


@unfold
def kad(
    *,
    source: DataOptions,
    encoder: EncoderOption = None,
    loading: LoadOptions,
    labels: LabelSetOption = "chestxray14",
    separator: SeparatorOption = None,
    ignore_unknown: Annotated[
        bool,
        typer.Option(
            "--ignore-unknown",
            help="Names that the label set does not know are other findings: listed in the result, not an error.",
        ),
    ] = False,
) -> None:
    """Run KAD's evaluation: zero-shot, each finding by itself.

    AUROC of each finding, F1 and MCC at the threshold of the best MCC. "No Finding" says that none is present; another
    name that the label set does not know is an error, since a misspelt finding would count as absent.

    Example: retr bench kad --data nih --metadata nih.csv --label findings --separator "|"
    """
    from retr.retrieval.evaluation.protocols.kad import run
    from retr.retrieval.labels.label_set import load_labels

    stores, findings = source.open(), load_labels("chestxray14" if labels is None else labels)
    images = source.read(stores)
    encoders = Encoders.of(encoder, "kad", loading, stores)
    scorer = encoders.built(lambda info: info.text, asked=True) if stores else encoders.load()
    result = run(
        images,
        scorer,
        findings,
        separator=separator,
        ignore_unknown=ignore_unknown,
        vectors=source.vectors(stores),
        seed=source.seed,
    )
    source.show(result, show_cells)


@unfold
def rad_dino(*, source: DataOptions, encoder: EncoderOption = None, loading: LoadOptions) -> None:
    """Run RAD-DINO's evaluation: a linear probe.

    AUPRC and AUROC of each class, patients kept apart.

    Example: retr bench rad-dino --data chest --encoder rad-dino --metadata chest.csv --group patient
    """
    from retr.retrieval.evaluation.protocols.rad_dino import run

    stores = source.open()
    images = source.read(stores)
    encoders = Encoders.of(encoder, "rad-dino", loading, stores)
    chosen = encoders.built(lambda _: True) if stores else encoders.load()
    source.show(run(images, chosen, vectors=source.vectors(stores), seed=source.seed), show_cells)


@unfold
def lvm_med(
    *,
    source: DataOptions,
    encoder: EncoderOption = None,
    loading: LoadOptions,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            "--exclude",
            metavar="FILE",
            help="List of files seen in pre-training (lvm-med-training-data/SET/file_list.txt); repeats.",
        ),
    ] = None,
) -> None:
    """Run LVM-Med's evaluation: a linear classifier, three runs.

    Its accuracy on frozen features.

    Example: retr bench lvm-med --data brain --encoder lvm-med --exclude file_list.txt
    """
    from retr.retrieval.evaluation.protocols.lvm_med import read_exclusions, run

    stores, seen = source.open(), read_exclusions(exclude or ())
    images = source.read(stores)
    encoders = Encoders.of(encoder, "lvm-med", loading, stores)
    chosen = encoders.built(lambda _: True) if stores else encoders.load()
    source.show(run(images, chosen, exclude=seen, vectors=source.vectors(stores), seed=source.seed), show_cells)
