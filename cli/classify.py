"""``retr classify``: classify pictures, with a confidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retr.cli._errors import NOTHING_FOUND
from retr.cli._options import (
    CsvOption,
    IndexOption,
    JsonOption,
    LabelSetOption,
    LoadOptions,
    SafeCsvOption,
    StrictExcludeOption,
    WhereOption,
    find_index,
    unfold,
)
from retr.cli._output import Output, given_picture
from retr.index.errors import ImageReadError, UsageError
from retr.index.machine.home import home

if TYPE_CHECKING:
    from retr.retrieval.classify.answers import Answer


@unfold
def classify(
    *,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="An image file, its https:// address, or - for standard input; repeats."),
    ] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="All images of a folder.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every row of the index; the answers become columns of it.")
    ] = False,
    labels: LabelSetOption = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="COLUMN", help="The nearest rows vote with this column's values.")
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            "--probe",
            metavar="COLUMN",
            help="A classifier trained on this column; trained and stored if there is none.",
        ),
    ] = None,
    shots: Annotated[
        Path | None,
        typer.Option(
            "--shots",
            metavar="FILE",
            help="A few examples of each class: a CSV of path (or id), label and, where known, patient. "
            "With --labels words count, too.",
        ),
    ] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the probe again.")] = False,
    k: Annotated[
        int | None,
        typer.Option(
            "-k",
            min=1,
            help="With --by: how many neighbours vote; by default as calibrated, else 5.",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes to show, the most probable first.")] = 5,
    where: WhereOption = None,
    patient: Annotated[
        str | None,
        typer.Option(
            "--patient",
            metavar="VALUE",
            help="The pictures' value of the group key: rows of the same patient say nothing about them.",
        ),
    ] = None,
    strict_exclude: StrictExcludeOption = False,
    max_set: Annotated[
        int | None,
        typer.Option(
            "--max-set",
            min=1,
            help="Abstain when more classes than this stay possible; by default half of them, rounded up.",
        ),
    ] = None,
    calibrated_on: Annotated[
        str | None,
        typer.Option(
            "--calibrated-on",
            metavar="COLUMN",
            help="With --labels: the column whose calibration counts, where there are calibrations on several.",
        ),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="PREFIX",
            help="With --all: begin the new columns' names so; by default zeroshot, neighbours or probe.",
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Zero-shot without an index, with this encoder.")
    ] = None,
    index: IndexOption = None,
    loading: LoadOptions,
    json_: JsonOption = False,
    csv_: CsvOption = False,
    safe_csv: SafeCsvOption = False,
) -> None:
    """Name what images show, and say how sure that is.

    By prompts (--labels), by the labels of their neighbours (--by), by a probe (--probe) or by examples (--shots).

    After `retr calibrate` the probability is a calibrated one, the set holds the truth as often as promised, and an
    image that is unlike the archive or undecided gets no answer but a reason. The exit code is 3 when there is no
    answer for any image.

    Example: retr classify --image x.png --by label -k 5
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_, csv_=csv_, safe_csv=safe_csv)
    images = _images(image or [], folder)
    if all_ == bool(images):
        raise UsageError("what to classify is not clear", hint="give --image or --folder, or --all")
    if encoder is not None:
        from retr.retrieval.classify.classify import classify_without_index
        from retr.retrieval.encoders.registry import load_encoder
        from retr.retrieval.labels.label_set import load_labels

        if labels is None or all_ or shots is not None or k is not None or patient is not None or max_set is not None:
            raise UsageError("--encoder is for zero-shot without an index", hint="give --labels and --image alone")
        loaded = load_encoder(encoder, **loading.options)
        _report(out, list(classify_without_index(loaded, load_labels(labels), images)), top)
        return
    opened = Index.open(find_index(index), **loading.options)
    way: dict[str, Any] = {"labels": labels, "by": by, "probe": probe, "k": k, "where": where, "retrain": retrain}
    way["calibrated_on"] = calibrated_on
    if shots is not None:
        ours = {"--all": all_, "--by": by, "--probe": probe, "--retrain": retrain, "-k": k, "--where": where}
        other = {**ours, "--max-set": max_set, "--calibrated-on": calibrated_on, "--strict-exclude": strict_exclude}
        wrong = next((name for name, value in other.items() if value not in {None, False}), None)
        if wrong is not None:
            raise UsageError(f"--shots excludes {wrong}", hint="give --labels and --patient alone beside it")
        _report(out, list(opened.few_shot(images, shots, labels=labels, patient=patient)), top)
        return
    if all_:
        if patient is not None:
            raise UsageError(f"--patient names whose the pictures are, got: {patient!r}", hint="with --all rows say it")
        out.record(opened.classify_rows(**way, max_set=max_set, into=into, say=out.note))
        return
    found = opened.classify(
        images, **way, patient=patient, strict_exclude=strict_exclude, max_set=max_set, say=out.note
    )
    _report(out, list(found), top)


def _images(given: list[str], folder: Path | None) -> list[Any]:
    """Gather the pictures: paths, and the bytes of standard input."""
    images: list[Any] = [home(one) if (data := given_picture(one)) is None else data for one in given]
    if folder is not None:
        from retr.retrieval.classify.classify import image_files

        images += image_files(folder)
    return images


def _report(out: Output, found: list[Any], top: int) -> None:
    """Print answers; exit with 3 when there is none among them, and raise when the only picture is unreadable."""
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
            out.record(one.to_json(top))
    elif out.form == "table" and len(answers) == 1:
        _one(out, answers[0], top)
    else:
        out.rows([_line(one) for one in answers])
        for promise in dict.fromkeys(one.promise for one in answers if getattr(one, "promise", None)):
            out.note(f"the sets hold the truth for {promise}")
        for note in dict.fromkeys(one.note for one in answers if one.note):
            out.note(note)
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


def _one(out: Output, one: Answer, top: int) -> None:
    """One answer for a person: the classes, what speaks for them, and what to know."""
    from retr.retrieval.hits import shown_names

    data = one.to_json(top)
    chosen = set(data.get("set") or ())
    rows = data.get("classes") or data["findings"]
    if chosen:
        rows = [{**row, "in set": row["label"] in chosen} for row in rows]
    out.rows(rows)
    if data.get("neighbours"):
        names = ["rank", "score", "id", *shown_names([one.column] if one.column else []).values()]
        shown = data["neighbours"][:10]
        out.rows(shown, names, title=f"nearest {len(shown)} of {data['voters']} that voted")
    if data.get("abstain"):
        out.note(f"abstains: {data['abstain']}")
    elif data.get("set") is not None:
        out.note(f"set of {len(chosen)}: {', '.join(data['set'])}; it holds the truth for {data['promise']}")
    if data.get("note"):
        out.note(data["note"])
