"""Render an evaluation as one self-contained HTML page: tables, and plots as inline SVG."""

from __future__ import annotations

import html
import io
import warnings
from math import isnan
from typing import TYPE_CHECKING, Any

from retr.index.errors import MissingExtraError
from retr.retrieval.stats.intervals import Estimate
from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from retr.retrieval.evaluation.evaluation import Evaluation

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5c6670; --line: #d9dee3; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4ae; --line: #343b43; --page: #14171a; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 1.5rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--page); overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.wide { overflow-x: auto; margin: .5rem 0 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } tr.small td { color: var(--soft); }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  align-items: start; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; }
figcaption { color: #444; padding: .25rem .25rem 0; font-size: 14px; }
svg { display: block; width: 100%; height: auto; }
"""


def render(evaluation: Evaluation) -> str:
    """Write the page.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    facts = {key: value for key, value in evaluation.facts.items() if value is not None}
    title = f"retr eval {evaluation.kind}: {facts.get('label')}"
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{_text(title)}</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{_STYLE}</style><h1>{_text(title)}</h1>",
        _table([{"": key.replace("_", " "), " ": value} for key, value in facts.items()]),
        *(f"<p>{_text(note)}</p>" for note in evaluation.notes),
        "<h2>All queries</h2>",
        _table([{"measure": name, **_columns(value)} for name, value in evaluation.metrics.items()]),
        f"<div class=plots>{''.join(_figures(evaluation))}</div>",
        "<h2>Per class</h2>",
        _table(evaluation.per_class),
    ]
    if evaluation.per_subgroup:
        parts += ["<h2>Subgroups</h2>", _table(evaluation.per_subgroup)]
    if evaluation.per_gallery:
        parts += ["<h2>Size of the gallery</h2>", _table(evaluation.per_gallery)]
    unit = "patients" if "patients" in facts else "images"
    how = _text(facts.get("intervals"))
    parts.append(f"<p>Intervals: {how}. Rows in grey rest on few {unit}: they are anecdotes.</p></html>")
    return "\n".join(parts)


def _columns(value: Estimate) -> dict[str, Any]:
    between = "" if isnan(value.low) else f"{value.low:.3f} to {value.high:.3f}"
    return {"value": value.value, "95 % interval": between, "n": value.n}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Estimate):
        return f"{value:.3f}"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return html.escape(visible(str(value)))


def _visible(data: Any) -> Any:
    """Escape what acts, rather than shows, in all texts of a plot's data."""
    if isinstance(data, str):
        return visible(data)
    if isinstance(data, dict):
        return {key: _visible(value) for key, value in data.items()}
    return [_visible(item) for item in data] if isinstance(data, list | tuple) else data


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    names = [name for name in rows[0] if name != "small"]
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = ""
    for row in rows:
        cells = "".join(f"<td>{_text(row.get(name))}</td>" for name in names)
        body += f"<tr class=small>{cells}</tr>" if row.get("small") else f"<tr>{cells}</tr>"
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


# plots


def _figures(evaluation: Evaluation) -> Iterable[str]:
    curves = evaluation.curves
    drawn: list[tuple[str, Any, Callable[[Any, Any], None]]] = [
        ("Precision and recall at every depth searched", curves.get("precision_recall"), _depth_curve),
        ("Precision and recall of each class", curves.get("precision_recall_classes"), _class_curves),
        ("Calibration: how often the stated confidence is right", curves.get("calibration"), _calibration),
        ("Confusion: share of each true class (rows) answered as each class", curves.get("confusion"), _confusion),
        ("Per class", evaluation.per_class, _bars),
    ]
    return [_figure(caption, _visible(data), draw) for caption, data, draw in drawn if data]


def _figure(caption: str, data: Any, draw: Callable[[Any, Any], None]) -> str:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "eval") from None
    sink = io.StringIO()
    # text stays text (small, searchable); a fixed salt gives the same page for the same numbers
    # and a class called "$x" is no formula
    shown = {"svg.fonttype": "none", "svg.hashsalt": "retr", "text.parse_math": False}
    with rc_context(shown), warnings.catch_warnings():
        # the reader's fonts draw the text, not these
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        draw(figure, data)
        figure.savefig(sink, format="svg", metadata={"Date": None})
    svg = sink.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{_text(caption)}</figcaption></figure>"


def _unit_axes(figure: Any, x: str, y: str) -> Any:
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
    return axes


def _fitted_axes(figure: Any, curves: Sequence[Mapping[str, Any]]) -> Any:
    """Return axes of recall and precision that end where the curves do: a search finds a few of many relevant rows."""
    axes = _unit_axes(figure, "recall", "precision")
    for limit, name in ((axes.set_xlim, "recall"), (axes.set_ylim, "precision")):
        most = max((value for curve in curves for value in curve[name] if not isnan(value)), default=1.0)
        limit(0, min(1.05 * most, 1.02) or 1)
    axes.grid(color="#e5e5e5", linewidth=0.6)
    return axes


def _depth_curve(figure: Any, data: dict[str, list[float]]) -> None:
    axes = _fitted_axes(figure, [data])
    axes.plot(data["recall"], data["precision"], marker="o", markersize=3)


def _class_curves(figure: Any, data: list[dict[str, Any]]) -> None:
    axes = _fitted_axes(figure, data)
    for curve in data:
        axes.plot(curve["recall"], curve["precision"], linewidth=1, label=curve["class"])
    if len(data) <= 8:
        axes.legend(fontsize=7)


def _calibration(figure: Any, data: dict[str, list[float]]) -> None:
    axes = _unit_axes(figure, "stated confidence", "share that is right")
    filled = [i for i, count in enumerate(data["count"]) if count]
    axes.plot([0, 1], [0, 1], color="#bbb", linewidth=1)
    sizes = [20 + 180 * data["count"][i] / max(data["count"]) for i in filled]
    axes.scatter([data["confidence"][i] for i in filled], [data["accuracy"][i] for i in filled], s=sizes, alpha=0.7)


def _confusion(figure: Any, data: dict[str, Any]) -> None:
    names, counts = data["classes"], data["counts"]
    figure.set_size_inches(2.6 + 0.2 * len(names), 2.2 + 0.2 * len(names))
    axes = figure.subplots()
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)


def _bars(figure: Any, data: list[dict[str, Any]]) -> None:
    name, values = _first_numbers(data)
    figure.set_size_inches(4.6, 1.2 + 0.2 * len(data))
    axes = figure.subplots()
    axes.barh(range(len(data)), values, color=["#ccc" if row.get("small") else "#4878a8" for row in data])
    axes.set_yticks(range(len(data)), [row["class"] for row in data], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel=name, xlim=(0, 1))


def _first_numbers(data: list[dict[str, Any]]) -> tuple[str, list[float]]:
    """Return the first measure of a per-class table, 0 where it is undefined."""
    name = next((key for key, value in data[0].items() if isinstance(value, Estimate)), "auroc")
    values = [row[name].value if isinstance(row[name], Estimate) else row[name] for row in data]
    return name, [0.0 if value is None or isnan(value) else float(value) for value in values]
