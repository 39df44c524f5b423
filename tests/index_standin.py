"""What measures and answers ask of an index, over a store that tests have made."""

from __future__ import annotations

from types import SimpleNamespace


class IndexStandIn(SimpleNamespace):
    """Of one version: ``IndexStandIn(store=store, text_side=None, encoder=None)``."""

    def snapshot(self) -> IndexStandIn:
        return self

    def refresh(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.store)
