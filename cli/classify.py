"""``retr classify``: name what a picture shows, and say how sure that is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._options import (
    CsvOption,
    DeviceOption,
    IndexOption,
    JsonOption,
    PrecisionOption,
    TextModelOption,
    WeightsOption,
    WhereOption,
    encoder_options,
    find_index,
)

if TYPE_CHECKING:
    from retr.cli._output import Output
    from retr.retrieval.classify.methods import Answer


def classify(
    *,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="An image file, or - for standard input; repeats.", show_default=False),
    ] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="All images of a folder.", show_default=False)] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every row of the index; the answers become columns of it.")
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="SET",
            help="Zero-shot: a YAML file of classes, or chestxray14, chexpert-5, fundus-39, odir, retizero-14.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="COLUMN", help="The nearest rows vote with this column's values.", show_default=False
        ),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            "--probe",
            metavar="COLUMN",
            help="A classifier trained on this column; trained and stored if there is none.",
            show_default=False,
        ),
    ] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the probe again.")] = False,
    k: Annotated[
        int | None,
        typer.Option(
            "-k",
            min=1,
            help="With --by how many rows vote (by default as calibrated, else 5); otherwise how many classes to show.",
            show_default=False,
        ),
    ] = None,
    where: WhereOption = None,
    patient: Annotated[
        str | None,
        typer.Option(
            "--patient",
            metavar="VALUE",
            help="The pictures' value of the group key: rows of the same patient say nothing about them.",
            show_default=False,
        ),
    ] = None,
    max_set: Annotated[
        int | None,
        typer.Option(
            "--max-set",
            min=1,
            help="Abstain when more classes than this stay possible; by default half of them, rounded up.",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="PREFIX",
            help="With --all: begin the new columns' names so; by default zeroshot, neighbours or probe.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Zero-shot without an index, with this encoder.", show_default=False),
    ] = None,
    index: IndexOption = None,
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonOption = False,
    csv_: CsvOption = False,
) -> None:
    """Name what images show: by prompts (--labels), by the labels of their neighbours (--by) or by a probe (--probe).

    After `retr calibrate` the probability is a calibrated one, the set holds the truth as often as promised, and an
    image that is unlike the archive or undecided gets no answer but a reason. The exit code is 3 when there is no
    answer for any image.

    Example: retr classify --image x.png --by label -k 5
    """
    from retr.cli._output import Output, choose_form
    from retr.index.errors import UsageError
    from retr.retrieval.classify import ask
    from retr.retrieval.labels.label_set import load_labels

    out = Output(choose_form(json_=json_, csv_=csv_))
    images = _images(image or [], folder)
    if all_ == bool(images):
        raise UsageError("what to classify is not clear", hint="give --image or --folder, or --all")
    options = encoder_options(weights=weights, text_model=text_model, device=device, precision=precision)
    classes = load_labels(labels) if labels is not None else None
    if encoder is not None:
        if classes is None or all_:
            raise UsageError("--encoder is for zero-shot without an index", hint="give --labels and --image")
        from retr.retrieval.encoders.registry import load_encoder

        loaded = load_encoder(encoder, **options)
        answers: Any = (
            ask.find_findings(loaded, loaded, classes, images)
            if classes.multilabel or hasattr(loaded, "score")
            else ask.classify_without_index(loaded, classes, images)
        )
        _report(out, list(answers), k or 5)
        return

    from retr.retrieval.engine import Index

    opened = Index.open(find_index(index), **options)
    if (
        classes is not None
        and by is None
        and probe is None
        and (classes.multilabel or hasattr(opened.encoder, "score"))
    ):
        if all_:
            raise UsageError(
                f"the findings of {classes.name!r} are scored on pictures, not on stored vectors",
                hint="store them with `retr index build --score`, or give --image or --folder",
            )
        side = None if hasattr(opened.encoder, "score") else opened.text_side
        _report(out, list(ask.find_findings(opened.encoder, side, classes, images)), k or 5)
        return
    method, note = ask.choose(opened, labels=classes, by=by, trained=probe, k=k, where=where, retrain=retrain)
    if note:
        out.note(note)
    if all_:
        from retr.retrieval.classify.methods import classify_rows

        prefix = into or {"z": "zeroshot", "n": "neighbours", "p": "probe"}[method.key[0]]
        answered = classify_rows(opened.store, method, prefix=prefix)
        out.record({"rows": len(opened), "answered": answered, "columns": f"{prefix}_label, {prefix}_probability"})
        return
    found = list(ask.classify_images(opened, method, images, patient=patient, max_set=max_set))
    _report(out, found, 5 if by is not None else k or 5)


def _images(given: list[str], folder: Path | None) -> list[Any]:
    """Gather the pictures: paths, and the bytes of standard input."""
    images: list[Any] = [sys.stdin.buffer.read() if one == "-" else Path(one) for one in given]
    if folder is not None:
        from retr.retrieval.classify.ask import image_files

        images += image_files(folder)
    return images


def _report(out: Output, found: list[Any], k: int) -> None:
    """Print answers; exit with 3 when there is none among them, and raise when the only picture is unreadable."""
    from retr.cli._errors import NOTHING_FOUND
    from retr.index.errors import ImageReadError

    unread = [one for one in found if isinstance(one, tuple)]
    answers = [one for one in found if not isinstance(one, tuple)]
    for name, error in unread:
        if not answers and len(unread) == 1:
            raise error
        out.note(f"not read: {name}: {error.reason}")
    if not answers:
        raise ImageReadError(f"none of {len(unread)} images could be read", reason="unsupported")
    if out.form == "json":
        for one in answers:
            out.record(one.to_json(k))
    elif out.form == "table" and len(answers) == 1:
        _one(out, answers[0], k)
    else:
        out.rows([_line(one) for one in answers])
    if all(getattr(one, "abstain", None) for one in answers):
        raise typer.Exit(NOTHING_FOUND)


def _line(one: Any) -> dict[str, Any]:
    """One answer as one row."""
    data = one.to_json(1)
    best = (data.get("classes") or data.get("findings"))[0]
    return {
        "query": one.query,
        "label": None if data.get("abstain") else best["label"],
        "probability": best["probability"],
        "calibrated": data["calibrated"],
        "set": " | ".join(data.get("set") or ()),
        "abstain": data.get("abstain"),
    }


def _one(out: Output, one: Answer, k: int) -> None:
    """One answer for a person: the classes, what speaks for them, and what to know."""
    data = one.to_json(k)
    chosen = set(data.get("set") or ())
    rows = data.get("classes") or data["findings"]
    if chosen:
        rows = [{**row, "in set": row["label"] in chosen} for row in rows]
    out.rows(rows)
    if data.get("neighbours"):
        names = ["rank", "score", "id", *([one.column] if one.column else [])]
        shown = data["neighbours"][:10]
        out.rows(shown, names, title=f"nearest {len(shown)} of {data['voters']} that voted")
    if data.get("abstain"):
        out.note(f"abstains: {data['abstain']}")
    elif data.get("set") is not None:
        promised = f"{100 * (1 - data['alpha']):g} %"
        out.note(f"the set of {len(chosen)} holds the truth in {promised} of such cases: {', '.join(data['set'])}")
    if data.get("note"):
        out.note(data["note"])
