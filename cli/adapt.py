"""``retr adapt``: fit a linear head on labelled rows, and write the index it gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retr.cli._options import IndexOption, JsonOption, WhereOption, find_index
from retr.cli.evaluate import GroupOption, LabelOption, SamePatientOption, SeparatorOption, open_cases

if TYPE_CHECKING:
    from retr.cli._output import Output
    from retr.retrieval.heads.adapt import Adapted

OutOption = Annotated[Path, typer.Option("--out", metavar="PATH", help="Where the adapted index goes.")]


def adapt(
    *,
    label: LabelOption,
    out: OutOption,
    index: IndexOption = None,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            metavar="EXPR",
            help="Fit on these rows and measure on the other labelled ones; by default half of the patients each.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="After measuring, fit the head that is kept on all labelled rows.")
    ] = False,
    features: Annotated[
        str,
        typer.Option(
            "--features",
            help="auto: embed again with features that suit a head better, where there are any; stored: never.",
        ),
    ] = "auto",
    separator: SeparatorOption = None,
    group: GroupOption = None,
    same_patient: SamePatientOption = False,
    where: WhereOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the split and the intervals.")] = 0,
    json_: JsonOption = False,
) -> None:
    """Fit a linear head on labelled rows, measure it on patients it never saw, and write an adapted index.

    In the adapted index rows of one class lie closer together. It is searched like any other index; new pictures pass
    through the head. The index it is made from stays as it is.

    Example: retr adapt --label diagnosis --out adapted.retr
    """
    from retr.cli import _output
    from retr.index.errors import UsageError
    from retr.retrieval.heads.adapt import adapt as run

    if features not in {"auto", "stored"}:
        raise UsageError(f"--features is auto or stored, got: {features!r}")
    chosen: Literal["auto", "stored"] = "auto" if features == "auto" else "stored"
    printer = _output.Output(_output.choose_form(json_=json_))
    store, cases = open_cases(find_index(index), label, separator, group, same_patient, where)
    done = run(store, cases, out, fitted=fit, everything=everything, features=chosen, seed=seed, progress=not json_)
    for note in done.notes:
        printer.note(note)
    _show(done, printer, out)


def _show(done: Adapted, out: Output, path: Path) -> None:
    if out.form == "json":
        figures = {
            when: {name: one.to_json() for name, one in found.items()}
            for when, found in (("before", done.before), ("after", done.after))
        }
        out.record({**done.facts, "held_out": figures, "out": path.name})
        return
    facts = {key: value for key, value in done.facts.items() if not isinstance(value, dict)}
    out.record(facts)
    out.line("")
    rows = [
        {"held-out rows": name, "before": f"{done.before[name]:.3f}", "after": f"{done.after[name]:.3f}"}
        for name in done.before
    ]
    out.rows(rows, title="95 % intervals: bootstrap over patients")
    if not done.facts["refitted_on_everything"]:
        out.note(
            f"measure more with `retr eval retrieval --label {done.facts['label']} --queries \"adapt = 'held out'\"`"
        )
    out.note(f"adapted index written to {path}")
