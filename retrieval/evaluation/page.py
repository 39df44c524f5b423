"""Render an evaluation as one self-contained HTML page: tables, and plots as inline SVG."""

from __future__ import annotations

import io
import warnings
from math import isnan
from typing import TYPE_CHECKING, Any

from retr.index.machine.extras import needed
from retr.retrieval.pages import render as rendered
from retr.retrieval.stats.intervals import Estimate
from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from retr.retrieval.evaluation.evaluation import Evaluation

# Colours of a plot that are the page's own, in light and in dark; matplotlib writes numbers, which are then replaced.
_INK, _SOFT, _LINE, _STRONG = "#010101", "#020202", "#030303", "#040404"
_OF_PAGE = {_INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)", _STRONG: "var(--strong)"}
# told from white and from nearly black alike
_CLASSES = ("#3f7fc1", "#c9711a", "#2f9466", "#9566c0", "#d4545a", "#1f8f9f", "#9d7434", "#c45a9a")


def render(evaluation: Evaluation) -> str:
    """Write the page.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    facts = {key: value for key, value in evaluation.facts.items() if value is not None}
    tables = [
        ("Per class", evaluation.per_class),
        ("Subgroups", evaluation.per_subgroup),
        ("Size of the gallery", evaluation.per_gallery),
    ]
    return rendered(
        "evaluation.html",
        title=f"retr eval {evaluation.kind}: {facts.get('label')}",
        facts={key.replace("_", " "): _text(value) for key, value in facts.items()},
        notes=evaluation.notes,
        metrics=_table([{"measure": name, **_columns(value)} for name, value in evaluation.metrics.items()]),
        plots=list(_plots(evaluation)),
        confusion=_confusion(evaluation.curves.get("confusion")),
        tables=[(name, _table(rows)) for name, rows in tables if rows],
        intervals=_text(facts.get("intervals")),
        unit="patients" if "patients" in facts else "images",
    )


def _columns(value: Estimate) -> dict[str, Any]:
    between = "" if isnan(value.low) else f"{value.low:.3f} to {value.high:.3f}"
    return {"value": value.value, "95 % interval": between, "n": value.n}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Estimate | float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a table's columns, those of them that are numbers, and its cells."""
    names = [name for name in rows[0] if name != "small"]
    numbers = {
        name for name in names[1:] if all(isinstance(row.get(name), int | float | Estimate | None) for row in rows)
    }
    cells = [{"small": row.get("small"), "texts": [_text(row.get(name)) for name in names]} for row in rows]
    return {"names": names, "numbers": numbers, "cells": cells}


def _confusion(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return of each true class how often it was answered as each, and what share of its row that is."""
    if found is None:
        return None
    rows = [[(count, round(count / max(sum(row), 1), 3)) for count in row] for row in found["counts"]]
    return {"classes": found["classes"], "rows": list(zip(found["classes"], rows, strict=True))}


def _visible(data: Any) -> Any:
    """Escape what acts, rather than shows, in all texts of a plot's data."""
    if isinstance(data, str):
        return visible(data)
    if isinstance(data, dict):
        return {key: _visible(value) for key, value in data.items()}
    return [_visible(item) for item in data] if isinstance(data, list | tuple) else data


# plots


def _plots(evaluation: Evaluation) -> Iterable[dict[str, Any]]:
    curves = evaluation.curves
    drawn: list[tuple[str, Any, Callable[[Any, Any], None]]] = [
        ("Precision and recall at every depth searched", curves.get("precision_recall"), _depth_curve),
        ("Precision and recall of each class", curves.get("precision_recall_classes"), _class_curves),
        ("Calibration: how often the stated confidence is right", curves.get("calibration"), _calibration),
        ("Each class, with its 95 % interval", evaluation.per_class, _bars),
    ]
    return [{"caption": caption, "svg": _svg(caption, _visible(data), draw)} for caption, data, draw in drawn if data]


def _svg(caption: str, data: Any, draw: Callable[[Any, Any], None]) -> Any:
    """Return a plot as markup that has a name and the page's colours."""
    with needed():
        from cycler import cycler
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    from markupsafe import Markup, escape

    sink = io.StringIO()
    shown = {
        # text stays text (small, searchable); a fixed salt gives the same page for the same numbers
        "svg.fonttype": "none",
        "svg.hashsalt": "retr",
        # a class called "$x" is no formula
        "text.parse_math": False,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "axes.edgecolor": _SOFT,
        "xtick.color": _SOFT,
        "ytick.color": _SOFT,
        "grid.color": _LINE,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=_CLASSES),
        "legend.frameon": False,
        "savefig.transparent": True,
    }
    with rc_context(shown), warnings.catch_warnings():
        # the reader's fonts draw the text, not these
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        draw(figure, data)
        figure.savefig(sink, format="svg", metadata={"Date": None})
    svg = sink.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    for number, colour in _OF_PAGE.items():
        svg = svg.replace(number, colour)
    # matplotlib has escaped every text
    return Markup(svg)  # noqa: S704


def _axes(figure: Any, x: str, y: str) -> Any:
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.grid(visible=True)
    return axes


def _limits(values: Iterable[float]) -> tuple[float, float]:
    """Return the ends of an axis that shares fill; it begins at 0 unless all of them are far from it.

    >>> _limits([0.1, 0.5]), _limits([0.9, 0.95]), _limits([])
    ((0.0, 0.525), (0.8975, 0.9525), (0.0, 1.02))
    """
    known = [value for value in values if not isnan(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if low < high / 2 or low == high:
        low = 0.0
    margin = (high - low) / 20
    return round(max(0.0, low - margin), 4), round(min(high + margin, 1.02), 4) or 1.0


def _depth_curve(figure: Any, data: dict[str, list[float]]) -> None:
    axes = _axes(figure, "recall", "precision")
    axes.plot(data["recall"], data["precision"], color=_STRONG, marker="o", markersize=3)
    axes.set(xlim=_limits(data["recall"]), ylim=_limits(data["precision"]))


def _class_curves(figure: Any, data: list[dict[str, Any]]) -> None:
    axes = _axes(figure, "recall", "precision")
    for curve in data:
        axes.plot(curve["recall"], curve["precision"], linewidth=1.3, label=curve["class"])
    axes.set(
        xlim=_limits(value for curve in data for value in curve["recall"]),
        ylim=_limits(value for curve in data for value in curve["precision"]),
    )
    if len(data) <= len(_CLASSES):
        figure.legend(loc="outside upper center", ncols=min(len(data), 3), fontsize=9)


def _calibration(figure: Any, data: dict[str, list[float]]) -> None:
    axes = _axes(figure, "stated confidence", "share that is right")
    filled = [i for i, count in enumerate(data["count"]) if count]
    stated, right = [data["confidence"][i] for i in filled], [data["accuracy"][i] for i in filled]
    ends = _limits([*stated, *right])
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle="--")
    sizes = [20 + 180 * data["count"][i] / max(data["count"]) for i in filled]
    axes.scatter(stated, right, s=sizes, color=_STRONG, alpha=0.7)
    axes.set(xlim=ends, ylim=ends)


def _bars(figure: Any, data: list[dict[str, Any]]) -> None:
    name, values = _first_numbers(data)
    figure.set_size_inches(4.6, 1.2 + 0.26 * len(data))
    axes = _axes(figure, name, "")
    places = range(len(data))
    axes.barh(places, values, color=[_LINE if row.get("small") else _STRONG for row in data])
    for place, row in enumerate(data):
        if isinstance(row[name], Estimate) and not isnan(row[name].low):
            axes.plot([row[name].low, row[name].high], [place, place], color=_INK, linewidth=1.2)
    axes.set_yticks(places, [row["class"] for row in data], fontsize=9)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1))


def _first_numbers(data: list[dict[str, Any]]) -> tuple[str, list[float]]:
    """Return the first measure of a per-class table, 0 where it is undefined."""
    name = next((key for key, value in data[0].items() if isinstance(value, Estimate)), "auroc")
    values = [row[name].value if isinstance(row[name], Estimate) else row[name] for row in data]
    return name, [0.0 if value is None or isnan(value) else float(value) for value in values]
