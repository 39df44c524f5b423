"""``retr adapt``: fit a linear head on labelled rows, and write the index it gives."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retr.cli._loudness import quiet
from retr.cli._options import IndexOption, JsonOption, SeedOption, find_index, unfold
from retr.cli._output import Output
from retr.cli.evaluate import CaseOptions

if TYPE_CHECKING:
    from retr.retrieval.heads.adapt import Adapted


@unfold
def adapt(
    *,
    cases: CaseOptions,
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="Where the adapted index goes.")],
    index: IndexOption = None,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            metavar="EXPR",
            help="Fit on these rows and measure on the other labelled ones; by default half of the patients each.",
        ),
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="After measuring, fit the head that is kept on all labelled rows.")
    ] = False,
    features: Annotated[
        str,
        typer.Option(
            "--features",
            help="auto: embed again with features that suit a head better, where there are any; stored: never.",
        ),
    ] = "auto",
    mix: Annotated[
        float | None,
        typer.Option(
            "--mix",
            metavar="SHARE",
            help="Share of the space that was there, 0 (head alone) to 1; by default chosen by cross-validation.",
        ),
    ] = None,
    seed: SeedOption = 0,
    json_: JsonOption = False,
) -> None:
    """Write an index in which rows of one class lie closer together.

    A linear head is fitted on the labelled rows of some patients and measured on the others. The adapted index is
    searched like any other; new pictures pass through the head. The index it is made from stays as it is.

    Example: retr adapt --label diagnosis --out adapted.retr
    """
    from retr.retrieval.index import Index

    printer = Output(json_=json_)
    done = Index.open(find_index(index)).adapt(
        out=out,
        fit=fit,
        refit=refit,
        features=features,  # type: ignore[arg-type]
        mix=mix,
        seed=seed,
        progress=not json_ and not quiet(),
        **asdict(cases),
    )
    for note in done.notes:
        printer.note(note)
    _show(done, printer, out)


def _show(done: Adapted, out: Output, path: Path) -> None:
    if out.form == "json":
        figures = {
            when: {name: one.to_json() for name, one in found.items()}
            for when, found in (("before", done.before), ("after", done.after), ("difference", done.difference))
        }
        out.record({**done.facts, "held_out": figures, "out": path.name})
        return
    facts = {key: value for key, value in done.facts.items() if not isinstance(value, dict)}
    out.record(facts)
    out.line("")
    unit = "patient" if "held_out_patients" in done.facts else "picture"
    rows = [
        {
            "held-out rows": name,
            "before": f"{done.before[name]:.3f}",
            "after": f"{done.after[name]:.3f}",
            "difference": f"{done.difference[name]:+.3f}",
        }
        for name in done.before
    ]
    out.rows(rows, title=f"95 % intervals by {unit}")
    if not done.facts["refitted_on_everything"]:
        out.note(
            f"measure more with `retr eval retrieval --label {done.facts['label']} --queries \"adapt = 'held out'\"`"
        )
    out.note(f"adapted index written to {path}")
