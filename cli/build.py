"""``retr index build`` and what goes with it: an archive becomes an index, or more of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retr.cli._loudness import quiet
from retr.cli._options import (
    INDEX_DIR,
    IndexesOption,
    IndexOption,
    JsonOption,
    LoadOptions,
    RayOption,
    find_index,
    unfold,
)
from retr.cli._output import Output
from retr.index.errors import UsageError
from retr.retrieval.ingest.options import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retr.retrieval.ingest.build import BuildReport
    from retr.retrieval.ingest.parts import PartReport

# what can be done about a file that could not be read
ADVICE = {
    "burned-in annotation": "--allow-burned-in reads files whose pixels hold annotations, which may name a person",
    "missing extra": 'DICOM and NIfTI are read after `pip install "retr[dicom]"`',
    "too large": "RETR_MAX_PIXELS=N lets pictures of up to N pixels be read",
}


@unfold
def build(
    archive: Annotated[
        str,
        typer.Argument(
            help="Folder of images, walked recursively; or a zip, tar, Parquet file, list of paths, s3:// URL, "
            "or a PACS, dicomweb://HOST/PATH."
        ),
    ],
    *,
    index: IndexesOption = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            metavar="NAME[,KEY=VALUE]",
            help="An encoder of `retr encoders ls`; by default lite for a new index, else the recorded one. Repeats.",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="NUMBER/OF",
            help="Embed only this part, such as 3/8, beside the index; `retr index merge` makes one of all.",
        ),
    ] = None,
    ray: RayOption = None,
    asked: BuildOptions,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """Embed an archive into an index, or bring an index up to date.

    A build that was stopped goes on where it was; a second one embeds only what is new or changed. Several encoders
    make several indexes from one reading of the archive: each --encoder has its --index, in the same order, and options
    of one encoder stand behind its name. With --part several machines that share a disk embed a part each.

    Example: retr index build ./archive --metadata labels.csv --group patient
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    places = index or [Path(os.environ.get("RETR_INDEX") or INDEX_DIR)]
    names: list[str | None] = [*encoder] if encoder else [None]
    if len(names) != len(places):
        raise UsageError(
            f"{len(names)} encoders and {len(places)} indexes",
            hint="give --index once for each --encoder, in the same order",
        )
    options = {"progress": not quiet(), **asked.asked(), **loading.options}
    if ray is not None and (part is not None or len(names) > 1):
        raise UsageError("--ray builds one index, and the whole archive", hint="leave out --part, or further --encoder")
    if part is not None:
        if len(names) > 1:
            raise UsageError("a part is built for one index, got several", hint="build them one at a time")
        done = Index.build_part(archive, places[0], part=part, encoder=names[0], **options)
        _report_part(out, done)
        return
    if len(names) == 1:
        built = Index.build(archive, places[0], encoder=names[0], ray=ray, **options)
        assert built.report is not None
        _report(out, built.report)
        return
    encoders = dict(zip(places, names, strict=True))
    if len(encoders) < len(places):
        raise UsageError("two encoders are given one index", hint="give each a folder of its own")
    for one in Index.build_several(archive, encoders, **options):
        assert one.report is not None
        _report(out, one.report, {"index": str(one.path), "encoder": one.store.manifest.encoder.name})


def _report_part(out: Output, done: PartReport) -> None:
    from dataclasses import asdict

    if out.form == "json":
        out.record(asdict(done))
        return
    what = f"{done.embedded} embedded, {done.kept} there already" + (
        f", {done.skipped} unreadable" * bool(done.skipped)
    )
    out.line(f"part {done.part}: {done.files} files ({what}) in {done.seconds:.1f} s")
    out.note("when all parts are built: `retr index merge`")


def merge(*, index: IndexOption = None, json_: JsonOption = False) -> None:
    """Make an index of the parts that --part built, in one commit.

    The parts lie beside the index, in NAME.parts, and go when they are merged. The index is what one process would have
    made. The archive is listed once more, and tables of labels are read again; no encoder is loaded.

    Example: retr index merge --index fundus.retr
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    built = Index.merge(index or Path(INDEX_DIR), progress=not quiet())
    assert built.report is not None
    _report(out, built.report)


@unfold
def add(
    source: Annotated[str, typer.Argument(help="A further folder, container, URL or image.")],
    *,
    index: IndexOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Prefix of the new ids; by default the folder's name.")
    ] = None,
    asked: BuildOptions,
    loading: LoadOptions,
    json_: JsonOption = False,
) -> None:
    """Embed a further folder, or one image, into an existing index.

    Ids get the folder's name as prefix. The same name again brings that part of the index up to date.

    Example: retr index add ./second-hospital --name site2
    """
    from retr.retrieval.index import Index

    out = Output(json_=json_)
    opened = Index.open(find_index(index), **loading.options)
    _report(out, opened.add(source, name=name, progress=not quiet(), **asked.asked()))


def _report(out: Output, report: BuildReport, which: Mapping[str, str] | None = None) -> None:
    """Print what a build did: one object, or a few lines with the reasons of what was skipped; of several, which."""
    from dataclasses import asdict

    if out.form == "json":
        out.record({**(which or {}), **asdict(report)})
        return
    if which is not None:
        out.line(f"{which['index']} ({which['encoder']}):")
    counts = {
        "embedded": report.embedded,
        "reused": report.reused,
        "unchanged": report.unchanged,
        "changed": report.changed,
        "removed": report.removed,
        "vanished, kept": report.vanished,
        "other files": report.other_files,
    }
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    out.line(f"{report.rows} rows ({said or 'nothing to do'}) in {report.seconds:.1f} s")
    if report.embedded:
        out.line(f"{report.images_per_second:.1f} images/s on {report.device}")
    if report.skipped:
        out.line("could not be read: " + ", ".join(f"{n} {why}" for why, n in sorted(report.skipped.items())))
        for path, why in report.skipped_examples:
            out.line(f"  {path}: {why}")
        if sum(report.skipped.values()) > len(report.skipped_examples):
            out.line("  ... all of them: `retr index ls --skipped`")
        for reason in sorted(report.skipped.keys() & ADVICE):
            out.note(ADVICE[reason])
    if report.without_metadata:
        out.line(f"{report.without_metadata} images have no row in the metadata table")
    if report.unmatched_metadata:
        shown = ", ".join(report.unmatched_examples)
        out.line(f"{report.unmatched_metadata} rows of the metadata table have no image: {shown} ...")
    if report.vanished:
        out.line(f"{report.vanished} rows have no file any more; drop them with --prune")
    for note in (*report.notes, *([report.fence] if report.fence else [])):
        out.note(note)
