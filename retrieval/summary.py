"""Summarise an index: the object behind ``retr index info``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retr.index.plan import describe
from retr.retrieval.labels.trained_rows import noted_head
from retr.retrieval.regions.layout import Layout

if TYPE_CHECKING:
    from retr.index.store import Store


def summary(store: Store) -> dict[str, Any]:
    """Return the index's rows, encoder, columns, way of searching and size, as one JSON-ready object."""
    from retr.retrieval.transforms.fitting import described

    manifest = store.manifest
    encoder = manifest.encoder
    head, layout = noted_head(store), Layout.of(store)
    return {
        "path": store.path.name,
        "rows": len(store),
        "encoder": encoder.name,
        "options": dict(encoder.options),
        "dim": encoder.dim,
        "dtype": manifest.dtype,
        "similarity": encoder.similarity,
        "text": encoder.text,
        "precision": encoder.precision,
        "weights": encoder.weights_sha256[:12],
        "licence": encoder.licence,
        "transform": described(store),
        "adapted_to": head.text("label") if head else None,
        "group": manifest.group,
        "item": manifest.item,
        "regions": None if layout is None else layout.division,
        "hashed": store.identity.hashed_columns,
        "key": store.identity.fingerprint,
        "columns": store.schema.names,
        "search": describe(manifest),
        "shards": max(manifest.shards, 1),
        "segments": len(manifest.segments),
        "deleted": store.n_total - len(store),
        "skipped": store.skipped().num_rows,
        "bytes": sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file()),
        "version": store.version,
        "format": manifest.format_version,
    }
