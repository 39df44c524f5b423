"""``retr bench``: the protocols of the published systems, on any data and any encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._options import (
    DeviceOption,
    EncoderOption,
    EncoderSetOption,
    PrecisionOption,
    TextModelOption,
    WeightsOption,
    encoder_options,
)

if TYPE_CHECKING:
    from retr.cli._output import Output

app = typer.Typer(
    help="Run a published protocol beside a strict one, on any data and any encoder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DataOption = Annotated[Path, typer.Option("--data", metavar="FOLDER", help="One folder of images for each class.")]
JsonFileOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write everything as one JSON object; - prints it instead."),
]
MetadataOption = Annotated[
    Path | None,
    typer.Option("--metadata", metavar="FILE", help="Table with a path column.", show_default=False),
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="COLUMN",
        help="Its column of class names; by default a picture's class is its folder.",
        show_default=False,
    ),
]
GroupOption = Annotated[
    str | None,
    typer.Option("--group", metavar="COLUMN", help="Its column that tells patients apart.", show_default=False),
]
MostOption = Annotated[int, typer.Option("--most", help="At most so many images of a class.")]
LeastOption = Annotated[int, typer.Option("--least", help="Leave classes with fewer images out.")]
WithoutOption = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="CLASS", help="Leave this class out; repeats.", show_default=False),
]
LabelsOption = Annotated[
    str | None,
    typer.Option("--labels", metavar="FILE", help="Label set for zero-shot: a name or a file.", show_default=False),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of splits and intervals.")]
PaperSetOption = Annotated[
    Path | None,
    typer.Option(
        "--paper-set",
        metavar="FILE",
        help='JSON with class counts of the paper\'s sets, from who holds them: {"EYE-15": {"Normal": 500, ...}}.',
        show_default=False,
    ),
]


@app.command("retizero")
def retizero(
    *,
    data: DataOption,
    encoder: EncoderOption = "lite",
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    settings: EncoderSetOption = None,
    metadata: MetadataOption = None,
    label: LabelOption = None,
    group: GroupOption = None,
    labels: LabelsOption = None,
    paper_set: PaperSetOption = None,
    most: MostOption = 8000,
    least: LeastOption = 1,
    without: WithoutOption = None,
    no_clusters: Annotated[bool, typer.Option("--no-clusters", help="Leave the UMAP and HDBSCAN step out.")] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonFileOption = None,
) -> None:
    """Run RetiZero's retrieval protocol as published, and strictly, with zero-shot where there are words.

    Published: similarity s/(s+d), clusters, the first of k+1 dropped. Strict: the encoder's own score, the query and
    its patient left out. The paper's numbers stand in their own column and are never mixed with this run's.

    Example: retr bench retizero --data fundus --encoder lite --json result.json
    """
    import json

    from retr.retrieval.encoders.registry import find_spec, load_encoder
    from retr.retrieval.evaluation.protocols.folder import read_folder
    from retr.retrieval.evaluation.protocols.retizero import run
    from retr.retrieval.labels.label_set import load_labels

    images = read_folder(
        data, metadata=metadata, label=label, group=group, most=most, least=least, without=tuple(without or ())
    )
    options = encoder_options(
        weights=weights, text_model=text_model, device=device, precision=precision, settings=settings
    )
    words = None
    if find_spec(encoder)[0].card.name == "retizero" and "feature" not in options:
        # the authors retrieve and name with two features of one network
        words = load_encoder(encoder, **options)
        options["feature"] = "retrieval"
    result = run(
        images,
        load_encoder(encoder, **options),
        text_encoder=words,
        labels=None if labels is None else load_labels(labels),
        clustered=not no_clusters,
        paper_sets=None if paper_set is None else json.loads(paper_set.read_text(encoding="utf-8")),
        seed=seed,
        progress=str(json_) != "-",
    )
    _finish(result, json_, _show_retizero)


@app.command("flair")
def flair(
    *,
    data: DataOption,
    encoder: EncoderOption = "flair",
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    settings: EncoderSetOption = None,
    metadata: MetadataOption = None,
    label: LabelOption = None,
    group: GroupOption = None,
    labels: LabelsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonFileOption = None,
) -> None:
    """Run FLAIR's evaluation: zero-shot by class prototypes (ACA, kappa, macro F1), and its linear probe.

    The probe runs with folds by image, as published, and with whole patients in a fold.

    Example: retr bench flair --data messidor --encoder flair --labels labels.yaml
    """
    from retr.retrieval.encoders.registry import find_spec, load_encoder
    from retr.retrieval.evaluation.protocols.flair import run
    from retr.retrieval.evaluation.protocols.folder import read_folder
    from retr.retrieval.labels.label_set import load_labels

    images = read_folder(data, metadata=metadata, label=label, group=group)
    options = encoder_options(
        weights=weights, text_model=text_model, device=device, precision=precision, settings=settings
    )
    projected = load_encoder(encoder, **options)
    probe = None
    if find_spec(encoder)[0].card.name in {"flair", "retizero"}:
        probe = load_encoder(encoder, **{**options, "feature": "backbone"})
    words = None if labels is None else load_labels(labels)
    result = run(images, projected, probe_encoder=probe, labels=words, seed=seed, progress=str(json_) != "-")
    _finish(result, json_, _show)


@app.command("kad")
def kad(
    *,
    data: DataOption,
    encoder: EncoderOption = "kad",
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    settings: EncoderSetOption = None,
    metadata: MetadataOption = None,
    label: LabelOption = None,
    group: GroupOption = None,
    labels: Annotated[str, typer.Option("--labels", help="The findings: a label set's name or file.")] = "chestxray14",
    separator: Annotated[
        str | None, typer.Option("--separator", help='What joins several findings, e.g. "|".', show_default=False)
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonFileOption = None,
) -> None:
    """Run KAD's zero-shot evaluation: AUROC of each finding, F1 and MCC at the threshold of the best MCC.

    Example: retr bench kad --data nih --metadata nih.csv --label findings --separator "|"
    """
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.evaluation.protocols.folder import read_folder
    from retr.retrieval.evaluation.protocols.kad import run
    from retr.retrieval.labels.label_set import load_labels

    images = read_folder(data, metadata=metadata, label=label, group=group)
    options = encoder_options(
        weights=weights, text_model=text_model, device=device, precision=precision, settings=settings
    )
    result = run(images, load_encoder(encoder, **options), load_labels(labels), separator=separator, seed=seed)
    _finish(result, json_, _show)


@app.command("rad-dino")
def rad_dino(
    *,
    data: DataOption,
    encoder: EncoderOption = "rad-dino",
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    settings: EncoderSetOption = None,
    metadata: MetadataOption = None,
    label: LabelOption = None,
    group: GroupOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonFileOption = None,
) -> None:
    """Run RAD-DINO's evaluation: a linear probe, AUPRC and AUROC of each class, patients kept apart.

    Example: retr bench rad-dino --data chest --encoder rad-dino --metadata chest.csv --group patient
    """
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.evaluation.protocols.folder import read_folder
    from retr.retrieval.evaluation.protocols.rad_dino import run

    images = read_folder(data, metadata=metadata, label=label, group=group)
    options = encoder_options(
        weights=weights, text_model=text_model, device=device, precision=precision, settings=settings
    )
    result = run(images, load_encoder(encoder, **options), seed=seed, progress=str(json_) != "-")
    _finish(result, json_, _show)


@app.command("lvm-med")
def lvm_med(
    *,
    data: DataOption,
    encoder: EncoderOption = "lvm-med",
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    settings: EncoderSetOption = None,
    metadata: MetadataOption = None,
    label: LabelOption = None,
    group: GroupOption = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            "--exclude",
            metavar="FILE",
            help="List of files seen in pre-training (lvm-med-training-data/SET/file_list.txt); repeats.",
            show_default=False,
        ),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonFileOption = None,
) -> None:
    """Run LVM-Med's linear evaluation: accuracy of a linear classifier on frozen features, three runs.

    Example: retr bench lvm-med --data brain --encoder lvm-med --exclude file_list.txt
    """
    from retr.retrieval.encoders.registry import load_encoder
    from retr.retrieval.evaluation.protocols.folder import read_folder
    from retr.retrieval.evaluation.protocols.lvm_med import read_exclusions, run

    images = read_folder(data, metadata=metadata, label=label, group=group)
    options = encoder_options(
        weights=weights, text_model=text_model, device=device, precision=precision, settings=settings
    )
    result = run(
        images,
        load_encoder(encoder, **options),
        exclude=read_exclusions(exclude or ()),
        seed=seed,
        progress=str(json_) != "-",
    )
    _finish(result, json_, _show)


def _finish(result: dict[str, Any], json_: Path | None, show: Any) -> None:
    from retr.cli._output import Output

    if str(json_) == "-":
        Output("json").record(result)
        return
    out = Output()
    show(result, out)
    if json_ is not None:
        import json

        from retr.cli._output import to_plain

        json_.write_text(json.dumps(to_plain(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        out.note(f"written to {json_}")


def _show_retizero(result: dict[str, Any], out: Output) -> None:
    data, published, strict = result["data"], result["published_protocol"], result["strict"]
    clustered = published["clustered"] or {"precision": {}, "any_hit": {}}
    paper = result["paper"]
    out.line(
        f"{data['folder']}: {data['images']} images, {len(data['classes'])} classes, {data['groups']} patients; "
        f"encoder {result['encoder']['name']}, {result['encoder']['embedding']}"
    )
    rows = [
        {
            "retrieval": f"{words}@{k}",
            "published, clustered": clustered[name].get(k),
            "published, no clusters": published[name][k],
            "strict": strict[name][k],
            "strict, 95 %": _interval(result["intervals"]["strict"][name][k]),
            "paper EYE-15": paper["retrieval_top5"]["EYE-15"] if k == "5" else None,
            "paper EYE-52": paper["retrieval_top5"]["EYE-52"] if k == "5" else None,
        }
        for name, words in (("precision", "precision"), ("any_hit", "any hit"))
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
                "any hit@5": step["any_hit"]["5"],
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
    out.line(f"{data['folder']}: {data['images']} images, {len(data['classes'])} classes, {data['groups']} patients")
    rows = []
    for name, values in result["measured"].items():
        cells = {key: _cell(value) for key, value in values.items()}
        rows.append({f"this run ({result['encoder']['name']})": name, **cells})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out.rows(rows, columns)
    out.line("")
    out.rows(result["published"], ["cell", "value", "source"], title="published, not measured here")
    out.line(f"The published cells cannot be compared with this run's: {result['data_is_the_papers_because']}.")


def _cell(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return "" if value["value"] is None else f"{value['value']:.3f} [{_interval(value)}]"


def _interval(estimate: dict[str, Any]) -> str:
    if estimate["low"] is None:
        return ""
    return f"{estimate['low']:.3f} to {estimate['high']:.3f}"
