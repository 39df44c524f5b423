"""``retr bench``: the protocols of the published systems, on any data and any encoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._options import (
    EncoderOption,
    GroupOption,
    JsonOption,
    LabelSetOption,
    LoadOptions,
    MetadataOption,
    SeedOption,
    SeparatorOption,
    unfold,
)
from retr.cli._output import Output
from retr.index.plain import to_plain

if TYPE_CHECKING:
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.evaluation.protocols.folder import ClassFolder

app = typer.Typer(
    help="Run a published protocol beside a strict one, on your data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """On which pictures a protocol runs, and where its numbers go."""

    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="One folder of images for each class.")]
    metadata: MetadataOption = None
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="COLUMN",
            help="The table's column of class names; by default a picture's class is its folder.",
        ),
    ] = None
    group: GroupOption = None
    seed: SeedOption = 0
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write everything as one JSON object.")
    ] = None
    json_: JsonOption = False

    def read(self, **limits: Any) -> ClassFolder:
        """Read the list of pictures."""
        from retr.retrieval.evaluation.protocols.folder import read_folder

        return read_folder(self.data, metadata=self.metadata, label=self.label, group=self.group, **limits)

    def show(self, result: dict[str, Any], show: Any) -> None:
        """Print what a protocol gave, and write it where it was asked for."""
        out = Output(json_=self.json_)
        if self.json_:
            out.record(result)
        else:
            show(result, out)
        if self.out is not None:
            self.out.write_text(json.dumps(to_plain(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            out.note(f"written to {self.out}")


def _load(encoder: str, loading: LoadOptions, **chosen: str) -> BaseEncoder:
    from retr.retrieval.encoders.registry import load_encoder

    return load_encoder(encoder, **{**loading.options, **chosen})


@app.command("retizero")
@unfold
def retizero(
    *,
    source: DataOptions,
    encoder: EncoderOption = "lite",
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
    most: Annotated[int, typer.Option("--most", help="At most so many images of a class.")] = 8000,
    least: Annotated[int, typer.Option("--least", help="Leave classes with fewer images out.")] = 1,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="CLASS", help="Leave this class out; repeats.")
    ] = None,
    no_clusters: Annotated[bool, typer.Option("--no-clusters", help="Leave the UMAP and HDBSCAN step out.")] = False,
) -> None:
    """Run RetiZero's retrieval protocol as published, and strictly.

    Published: similarity s/(s+d), clusters, the first of k+1 dropped. Strict: the encoder's own score, the query and
    its patient left out. With --labels also zero-shot, for encoders with words. The paper's numbers stand in their own
    column and are never mixed with this run's.

    Example: retr bench retizero --data fundus --encoder lite --out result.json
    """
    from retr.retrieval.encoders.registry import find_spec
    from retr.retrieval.evaluation.protocols.retizero import run
    from retr.retrieval.labels.label_set import load_labels

    images = source.read(most=most, least=least, without=tuple(without or ()))
    # the authors retrieve and name with two features of one network
    two = find_spec(encoder)[0].card.name == "retizero" and "feature" not in loading.options
    words = _load(encoder, loading) if two else None
    result = run(
        images,
        _load(encoder, loading, **({"feature": "retrieval"} if two else {})),
        text_encoder=words,
        labels=None if labels is None else load_labels(labels),
        clustered=not no_clusters,
        paper_sets=None if paper_set is None else json.loads(paper_set.read_text(encoding="utf-8")),
        seed=source.seed,
        progress=not source.json_,
    )
    source.show(result, _show_retizero)


@app.command("flair")
@unfold
def flair(
    *, source: DataOptions, encoder: EncoderOption = "flair", loading: LoadOptions, labels: LabelSetOption = None
) -> None:
    """Run FLAIR's evaluation: zero-shot, and a linear probe.

    Zero-shot is by class prototypes; both are stated as ACA, kappa and macro F1, and as quadratic kappa where the label
    set is `ordered`. The probe runs with folds by image, as
    published, and with whole patients in a fold.

    Example: retr bench flair --data messidor --encoder flair --labels labels.yaml
    """
    from retr.retrieval.encoders.registry import find_spec
    from retr.retrieval.evaluation.protocols.flair import run
    from retr.retrieval.labels.label_set import load_labels

    images, projected = source.read(), _load(encoder, loading)
    probe = None
    if find_spec(encoder)[0].card.name in {"flair", "retizero"}:
        probe = _load(encoder, loading, feature="backbone")
    words = None if labels is None else load_labels(labels)
    result = run(images, projected, probe_encoder=probe, labels=words, seed=source.seed, progress=not source.json_)
    source.show(result, _show)


@app.command("kad")
@unfold
def kad(
    *,
    source: DataOptions,
    encoder: EncoderOption = "kad",
    loading: LoadOptions,
    labels: LabelSetOption = "chestxray14",
    separator: SeparatorOption = None,
) -> None:
    """Run KAD's evaluation: zero-shot, each finding by itself.

    AUROC of each finding, F1 and MCC at the threshold of the best MCC.

    Example: retr bench kad --data nih --metadata nih.csv --label findings --separator "|"
    """
    from retr.retrieval.evaluation.protocols.kad import run
    from retr.retrieval.labels.label_set import load_labels

    images, findings = source.read(), load_labels(labels or "chestxray14")
    source.show(run(images, _load(encoder, loading), findings, separator=separator, seed=source.seed), _show)


@app.command("rad-dino")
@unfold
def rad_dino(*, source: DataOptions, encoder: EncoderOption = "rad-dino", loading: LoadOptions) -> None:
    """Run RAD-DINO's evaluation: a linear probe.

    AUPRC and AUROC of each class, patients kept apart.

    Example: retr bench rad-dino --data chest --encoder rad-dino --metadata chest.csv --group patient
    """
    from retr.retrieval.evaluation.protocols.rad_dino import run

    images = source.read()
    source.show(run(images, _load(encoder, loading), seed=source.seed, progress=not source.json_), _show)


@app.command("lvm-med")
@unfold
def lvm_med(
    *,
    source: DataOptions,
    encoder: EncoderOption = "lvm-med",
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

    images, seen = source.read(), read_exclusions(exclude or ())
    result = run(images, _load(encoder, loading), exclude=seen, seed=source.seed, progress=not source.json_)
    source.show(result, _show)


def _show_retizero(result: dict[str, Any], out: Output) -> None:
    data, published, strict = result["data"], result["published_protocol"], result["strict"]
    clustered = published["clustered"] or {"precision": {}, "any_hit": {}}
    paper = result["paper"]
    out.line(f"{_describe(data)}; encoder {result['encoder']['name']}, {result['encoder']['embedding']}")
    rows = [
        {
            "retrieval": f"{name}@{k}",
            "published, clustered": clustered[name].get(k),
            "published, no clusters": published[name][k],
            "strict": strict[name][k],
            "strict, 95 %": _interval(result["intervals"]["strict"][name][k]),
            "paper EYE-15": paper["retrieval_top5"]["EYE-15"] if k == "5" else None,
            "paper EYE-52": paper["retrieval_top5"]["EYE-52"] if k == "5" else None,
        }
        for name in ("precision", "any_hit")
        for k in ("1", "3", "5")
    ]
    out.rows(rows, title="the paper gives one Top-5 and does not say which of the two definitions it is")
    zero = result["zero_shot"]
    out.line("")
    out.rows(
        [
            {
                "zero-shot": f"top-{k}",
                "this run": zero[k],
                "paper EYE-15": paper["zero_shot_top5"]["EYE-15"] if k == "5" else None,
                "paper EYE-52": paper["zero_shot_top5"]["EYE-52"] if k == "5" else None,
            }
            for k in ("1", "3", "5")
        ],
        title=f"no zero-shot: {zero['reason']}" if "reason" in zero else "",
    )
    out.line("")
    out.rows(
        [
            {
                "from published to strict": step["is"],
                "precision@1": step["precision"]["1"],
                "precision@5": step["precision"]["5"],
                "any_hit@5": step["any_hit"]["5"],
            }
            for step in result["steps"]
        ]
    )
    first, last = result["steps"][0]["precision"]["1"], result["steps"][-1]["precision"]["1"]
    near = result["near_duplicates"]
    out.line("")
    out.line(
        f"precision@1 is {abs(first - last):.4f} {'higher' if first > last else 'lower'} as published than strictly."
    )
    out.line(
        f"near-duplicates (cosine of at least {near['cosine_at_least']}): {near['pairs']} pairs, "
        f"{near['of_different_patients']} of different patients, {near['of_different_classes']} of different classes"
    )
    verdict = "This is the paper's data" if result["data_is_the_papers"] else "This is not the paper's data"
    out.line(f"{verdict}: {result['data_is_the_papers_because']}.")
    if not result["data_is_the_papers"]:
        out.line("The paper's numbers are shown for orientation; they cannot be compared with this run's.")


def _show(result: dict[str, Any], out: Output) -> None:
    data = result["data"]
    out.line(_describe(data))
    rows = []
    for name, values in result["measured"].items():
        cells = {key: _cell(value) for key, value in values.items()}
        rows.append({f"this run ({result['encoder']['name']})": name, **cells})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out.rows(rows, columns)
    out.line("")
    out.rows(result["published"], ["cell", "value", "source"], title="published, not measured here")
    out.line(f"The published cells cannot be compared with this run's: {result['data_is_the_papers_because']}.")


def _describe(data: dict[str, Any]) -> str:
    patients = f"{data['groups']} patients" if data["group"] else "patients not known (--group)"
    return f"{data['folder']}: {data['images']} images, {len(data['classes'])} classes, {patients}"


def _cell(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return "" if value["value"] is None else f"{value['value']:.3f} [{_interval(value)}]"


def _interval(estimate: dict[str, Any]) -> str:
    if estimate["low"] is None:
        return ""
    return f"{estimate['low']:.3f} to {estimate['high']:.3f}"
