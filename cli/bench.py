"""``retr bench``: run the evaluation protocols of published systems on any data with any encoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from retr.cli._bench_output import show_cells, show_retizero
from retr.cli._options import (
    GroupOption,
    JsonOption,
    LabelSetOption,
    LoadOptions,
    MetadataOption,
    PathColumnOption,
    SeedOption,
    SeparatorOption,
    unfold,
)
from retr.cli._output import Output
from retr.index.errors import RetrError, UsageError
from retr.index.machine.whole_file import write_output
from retr.retrieval.json_values import to_plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from retr.index.encoder import EncoderInfo
    from retr.index.store import Store
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder
    from retr.retrieval.evaluation.protocols.vectors import Embedder

EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="An encoder of `retr encoders ls`; by default the protocol's own (`lite` for retizero), with --index its.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """On which pictures a protocol runs, and where its numbers go."""

    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="One folder of images for each class; or see --label."),
    ] = None
    index: Annotated[
        list[Path] | None,
        typer.Option(
            "--index",
            metavar="FOLDER",
            help="Take the vectors of this index instead of embedding; its rows, too, without --data. Repeats: one for "
            "each feature of a protocol.",
        ),
    ] = None
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="FOLDER",
            help="Keep what is embedded in this index, and go on with it; by default in the user's cache.",
        ),
    ] = None
    metadata: MetadataOption = None
    path_column: PathColumnOption = None
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="COLUMN",
            help="The column of class names, of the table or of --index; by default a picture's class is its folder.",
        ),
    ] = None
    group: GroupOption = None
    seed: SeedOption = 0
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write everything as one JSON object.")
    ] = None
    json_: JsonOption = False

    def open(self) -> tuple[Store, ...]:
        """Open the indexes that were named, and refuse what cannot be meant."""
        from retr.index.machine.home import home
        from retr.index.store import Store

        if self.data is None and not self.index:
            raise UsageError("no pictures were named", hint="give --data FOLDER, or --index FOLDER")
        if self.index and self.work:
            raise UsageError("--work keeps what is embedded, and with --index nothing is", hint="give one of them")
        if self.path_column is not None and self.metadata is None:
            raise UsageError("--path-column is of the table of labels", hint="give it with --metadata FILE")
        if self.data is None and self.metadata is not None:
            raise UsageError(
                "--metadata goes with --data", hint="an index has columns: name them with --label, --group"
            )
        if self.out is not None and (self.out.is_dir() or not self.out.absolute().parent.is_dir()):
            raise UsageError(f"--out cannot be written: {str(self.out)!r}", hint="name a file in a folder that exists")
        return tuple(Store.open(home(path)) for path in self.index or ())

    def read(self, stores: tuple[Store, ...], **limits: Any) -> ClassFolder:
        """Read the list of pictures."""
        from retr.retrieval.evaluation.protocols.folder import read_folder, read_index

        if self.data is None:
            return read_index(stores[0], label=self.label, group=self.group, **limits)
        return read_folder(
            self.data,
            metadata=self.metadata,
            path_column=self.path_column,
            label=self.label,
            group=self.group,
            **limits,
        )

    def vectors(self, stores: tuple[Store, ...]) -> Embedder:
        """Return where the vectors come from."""
        from retr.retrieval.evaluation.protocols.vectors import Built, Work

        return Built(stores) if stores else Work(folder=self.work, kept=True, progress=not self.json_)

    def show(self, result: dict[str, Any], show: Callable[[dict[str, Any], Output], None]) -> None:
        """Print what a protocol gave, and write it where it was asked for."""
        out = Output(json_=self.json_)
        if self.json_:
            out.record(result)
        else:
            show(result, out)
        if self.out is not None:
            text = json.dumps(to_plain(result), indent=1, ensure_ascii=False) + "\n"
            try:
                write_output(self.out, text.encode("utf-8", "backslashreplace"))
            except OSError:
                hint = "run again with another --out: nothing is lost"
                raise RetrError(f"cannot write {str(self.out)!r}", hint=hint) from None
            out.note(f"written to {self.out}")


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

        infos = [store.manifest.encoder for store in self.stores]
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
    from retr.retrieval.evaluation.protocols.retizero import read_paper_sets, run
    from retr.retrieval.labels.label_set import load_labels

    stores = source.open()
    words = None if labels is None else load_labels(labels)
    sets = None if paper_set is None else read_paper_sets(paper_set)
    images, which = source.read(stores, most=most, least=least, without=tuple(without or ())), None
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
    """Run FLAIR's evaluation: zero-shot, and a linear probe.

    Zero-shot is by class prototypes; both are stated as ACA, kappa and macro F1, and as quadratic kappa where the order
    of the grades is declared: by --grades, or by a label set that is `ordered`. The probe runs with folds by image, as
    published, and with whole patients in a fold.

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
