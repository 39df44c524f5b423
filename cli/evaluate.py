"""``retr eval``: how good an index is on its own labelled rows, with intervals over patients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from retr.index.store import Store
    from retr.retrieval.evaluation.evaluate import Evaluation, Options
    from retr.retrieval.labels.cases import Cases

app = typer.Typer(
    help="Measure an index on its own labelled rows, patients kept apart, with confidence intervals.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

LabelOption = Annotated[str, typer.Option("--label", metavar="COLUMN", help="The column of class names.")]
SeparatorOption = Annotated[
    str | None,
    typer.Option("--separator", help='What joins several classes in one value, e.g. "|".', show_default=False),
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="COLUMN",
        help="Column that marks one patient, whose rows never answer each other; by default the index's group key.",
        show_default=False,
    ),
]
SamePatientOption = Annotated[bool, typer.Option("--same-patient", help="Let rows of the query's patient answer.")]
QueriesOption = Annotated[
    str | None,
    typer.Option(
        "--queries",
        metavar="EXPR",
        help="Only rows for which this is true ask; the others still answer.",
        show_default=False,
    ),
]
ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="COLUMNS", help="Also measure subgroups, e.g. sex,device.", show_default=False),
]
ResamplesOption = Annotated[int, typer.Option("--resamples", help="Bootstrap resamples behind every interval.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")]
HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Also write a one-page report with plots.", show_default=False),
]


@app.command("retrieval")
def retrieval(
    *,
    label: LabelOption,
    index: IndexOption = None,
    k: Annotated[str, typer.Option("-k", help="Depths, separated by commas.")] = "1,5,10",
    separator: SeparatorOption = None,
    group: GroupOption = None,
    same_patient: SamePatientOption = False,
    where: WhereOption = None,
    queries: QueriesOption = None,
    by: ByOption = None,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    html: HtmlOption = None,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
    csv_: CsvOption = False,
) -> None:
    """Measure how many of the nearest rows share the query's class.

    precision@k, any-hit@k, recall@k, mAP@k, nDCG@k and MRR, overall, macro over classes, per class and per subgroup.
    Rows of the query's patient are left out where the index has a group key.

    Example: retr eval retrieval --label label --by sex,age --html report.html
    """
    from retr.index.errors import UsageError
    from retr.retrieval.evaluation import evaluate

    depths = [part.strip() for part in k.split(",") if part.strip()]
    if not all(part.isdigit() for part in depths):
        raise UsageError(f"-k takes whole numbers separated by commas, got: {k!r}", hint="for example -k 1,5,10")
    store, cases = open_cases(find_index(index), label, separator, group, same_patient, where, queries)
    store.place(device)
    found = evaluate.retrieval(store, cases, ks=[int(part) for part in depths], options=_options(resamples, seed, by))
    _show(found, html, json_=json_, csv_=csv_)


@app.command("neighbours")
def neighbours(
    *,
    label: LabelOption,
    index: IndexOption = None,
    k: Annotated[int, typer.Option("-k", help="How many neighbours vote.")] = 5,
    separator: SeparatorOption = None,
    group: GroupOption = None,
    same_patient: SamePatientOption = False,
    where: WhereOption = None,
    queries: QueriesOption = None,
    by: ByOption = None,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    html: HtmlOption = None,
    device: DeviceOption = "auto",
    json_: JsonOption = False,
    csv_: CsvOption = False,
) -> None:
    """Measure naming by a vote of the nearest rows of other patients.

    Example: retr eval neighbours --label label -k 10
    """
    from retr.retrieval.evaluation import evaluate

    store, cases = open_cases(find_index(index), label, separator, group, same_patient, where, queries)
    store.place(device)
    _show(evaluate.neighbours(store, cases, k=k, options=_options(resamples, seed, by)), html, json_=json_, csv_=csv_)


@app.command("probe")
def probe(
    *,
    label: LabelOption,
    index: IndexOption = None,
    folds: Annotated[int, typer.Option("--folds", help="Into how many parts the patients are dealt.")] = 5,
    separator: SeparatorOption = None,
    group: GroupOption = None,
    same_patient: SamePatientOption = False,
    where: WhereOption = None,
    queries: QueriesOption = None,
    by: ByOption = None,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    html: HtmlOption = None,
    json_: JsonOption = False,
    csv_: CsvOption = False,
) -> None:
    """Measure naming by logistic regression on the vectors, every patient answered by a fit that never saw it.

    Example: retr eval probe --label label
    """
    from retr.retrieval.evaluation import evaluate

    store, cases = open_cases(find_index(index), label, separator, group, same_patient, where, queries)
    options = _options(resamples, seed, by)
    _show(evaluate.probe(store, cases, folds=folds, options=options), html, json_=json_, csv_=csv_)


@app.command("zero-shot")
def zero_shot(
    *,
    label: LabelOption,
    labels: Annotated[
        str,
        typer.Option("--labels", metavar="FILE", help="A label set's name or YAML file: classes and their prompts."),
    ],
    index: IndexOption = None,
    separator: SeparatorOption = None,
    group: GroupOption = None,
    same_patient: SamePatientOption = False,
    where: WhereOption = None,
    queries: QueriesOption = None,
    by: ByOption = None,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    html: HtmlOption = None,
    weights: WeightsOption = None,
    text_model: TextModelOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    json_: JsonOption = False,
    csv_: CsvOption = False,
) -> None:
    """Measure naming by words alone; the label column only scores the answers.

    Example: retr eval zero-shot --label label --labels odir
    """
    from retr.retrieval.engine import Index
    from retr.retrieval.evaluation import evaluate
    from retr.retrieval.labels.label_set import load_labels

    store, cases = open_cases(find_index(index), label, separator, group, same_patient, where, queries)
    settings = encoder_options(weights=weights, text_model=text_model, device=device, precision=precision)
    encoder = Index.open(store.path, **settings).encoder
    found = evaluate.zero_shot(store, cases, encoder, load_labels(labels), options=_options(resamples, seed, by))
    _show(found, html, json_=json_, csv_=csv_)


def open_cases(
    index: Path,
    label: str,
    separator: str | None,
    group: str | None,
    same_patient: bool,
    where: str | None,
    queries: str | None = None,
) -> tuple[Store, Cases]:
    """Open an index and find its labelled rows, as the options say."""
    from retr.index.errors import UsageError
    from retr.index.store import Store
    from retr.retrieval.labels.cases import AUTO, find_cases

    if group is not None and same_patient:
        raise UsageError(f"--group {group!r} and --same-patient exclude each other", hint="give one of them")
    store = Store.open(index)
    chosen = None if same_patient else group or AUTO
    return store, find_cases(store, label, separator=separator, group=chosen, where=where, queries=queries)


def _options(resamples: int, seed: int, by: str | None) -> Options:
    from retr.retrieval.evaluation.evaluate import Options

    return Options(resamples, seed, tuple(part.strip() for part in (by or "").split(",") if part.strip()))


def _show(evaluation: Evaluation, html: Path | None, *, json_: bool, csv_: bool) -> None:
    from retr.cli._output import Output, choose_form

    out = Output(choose_form(json_=json_, csv_=csv_))
    if html is not None:
        from retr.retrieval.evaluation.page import render

        html.write_text(render(evaluation), encoding="utf-8")
        out.note(f"report written to {html}")
    if json_:
        out.record(evaluation.to_json())
        return
    for note in evaluation.notes:
        out.note(note)
    measures = [
        {"measure": name, "value": one.value, "low": one.low, "high": one.high, "n": one.n, "patients": one.groups}
        for name, one in evaluation.metrics.items()
    ]
    if csv_:
        out.rows(measures)
        return
    out.record(evaluation.facts)
    out.line("")
    out.rows(measures, title="95 % intervals: bootstrap over patients")
    for title, rows in (("per class", evaluation.per_class), ("per subgroup", evaluation.per_subgroup)):
        if rows:
            out.line("")
            out.rows([_readable(row) for row in rows], title=f"{title} (* rests on few patients)")


def _readable(row: dict[str, object]) -> dict[str, object]:
    """Write intervals into their cells, and mark a small cell."""
    from retr.retrieval.stats.bootstrap import Estimate

    cells: dict[str, object] = {
        key: f"{value:.3f}" if isinstance(value, Estimate) else value for key, value in row.items() if key != "small"
    }
    cells["n"] = f"{row['n']}{' *' if row['small'] else ''}"
    return cells
