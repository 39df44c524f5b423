"""A map as a page, a picture or a table.

The page opens without a server and fetches nothing. Ids and labels stand in it as data, which nothing runs.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.index.machine.home import home
from retr.index.machine.whole_file import write_output
from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from retr.index.store import Store
    from retr.retrieval.curation.map import Map

#: The endings of what can be written.
ENDINGS = (".html", ".png", ".parquet")
# So many labels have a colour of their own.
_COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee7733", "#009988",
    "#332288", "#999933", "#882255", "#44aa99",
)  # fmt: skip
_OTHER = "#aaaaaa"


def write_map(drawn: Map, store: Store, path: Path) -> None:
    """Write a map to an ``.html``, ``.png`` or ``.parquet`` file; the last has all metadata of the rows.

    Raises
    ------
    UsageError
        For another ending.
    MissingExtraError
        A picture needs matplotlib, which is not installed.
    """
    ending, path = require_ending(path), home(path)
    if ending == ".html":
        write_output(path, page(drawn).encode())
    else:
        write_output(path, _picture(drawn) if ending == ".png" else _table(drawn, store))


def require_ending(path: Path) -> str:
    """Return the ending of a file that a map can be written to; `UsageError` for another."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(f"a map is written as {', '.join(ENDINGS)}, got {path.name!r}", hint="change the ending")
    return ending


def page(drawn: Map) -> str:
    """Return the page."""
    common = [name for name, _ in Counter(label for label in drawn.labels if label).most_common()]
    place = {name: at for at, name in enumerate(common)}
    data = {
        "n": len(drawn),
        "xy": _encoded(drawn.xy.astype("<f4")),
        "clusters": _encoded(drawn.clusters.astype("<i4")),
        "labels": _encoded(np.array([place.get(label, -1) for label in drawn.labels], "<i4")),
        "names": [visible(name) for name in drawn.names],
        "values": [visible(name) for name in common],
        "ids": [visible(name) for name in drawn.ids],
        "colours": _COLOURS,
        "other": _OTHER,
        "column": visible(drawn.label or ""),
    }
    # no text of others can end the script that holds it
    held = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    text = Path(__file__).with_name("map_page.html").read_text(encoding="utf-8")
    return text.replace("/*DATA*/", held.replace("\u2029", "\\u2029"), 1)


def _encoded(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _table(drawn: Map, store: Store) -> bytes:
    """Return a Parquet file with the columns ``x``, ``y``, ``cluster``, and the rows' metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = store.table(rows=store.rows_of(drawn.ids))
    own = {
        "x": pa.array(drawn.xy[:, 0]),
        "y": pa.array(drawn.xy[:, 1]),
        "cluster": pa.array([drawn.names[one] if one >= 0 else None for one in drawn.clusters.tolist()], pa.string()),
    }
    names = [f"{name}_of_row" if name in own else name for name in metadata.column_names]
    table = metadata.rename_columns(names)
    for name, values in own.items():
        table = table.append_column(name, values)
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), sink)
    return sink.getvalue()


def _picture(drawn: Map) -> bytes:
    """Draw a PNG: points in the colours of their labels, the names of clusters over them."""
    with needed():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = np.array(drawn.labels)
    common = [name for name, _ in Counter(name for name in drawn.labels if name).most_common(len(_COLOURS))]
    size = float(np.clip(20_000 / max(len(drawn), 1), 1, 30))
    rest = ~np.isin(labels, common)
    for name, colour, chosen in [
        ("other", _OTHER, rest),
        *((name, colour, labels == name) for name, colour in zip(common, _COLOURS, strict=False)),
    ]:
        if chosen.any():
            axes.scatter(drawn.xy[chosen, 0], drawn.xy[chosen, 1], s=size, c=colour, linewidths=0, label=_plain(name))
    for number, name in enumerate(drawn.names):
        middle = np.median(drawn.xy[drawn.clusters == number], axis=0) if (drawn.clusters == number).any() else None
        if middle is not None:
            box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
            axes.annotate(_plain(name), middle, ha="center", va="center", fontsize=8, bbox=box)
    axes.set_axis_off()
    if common:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return sink.getvalue()


def _plain(name: str) -> str:
    """Return a text that matplotlib draws as it is: no formula, no control characters, no name it hides."""
    return visible(name).replace("$", r"\$").lstrip("_")[:60] or "-"
