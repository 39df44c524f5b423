"""Stands for the machines that hold an index's shards: each is opened alone, and what travels is pickled."""

from __future__ import annotations

import pickle

from retr.index import fan_out
from retr.index.errors import RetrError


class Shards:
    """A `retr.index.scatter.Remote`; the shards of which the numbers are in ``down`` do not answer."""

    def __init__(self, path):
        self.path, self.down, self.asked, self.prepared, self.closed = path, set(), [], [], False

    def ask(self, store, questions, *, partial):
        found = []
        for number, question in enumerate(questions):
            self.asked.append(number)
            if number in self.down:
                found.append(None)
                continue
            shard = fan_out.open_shard(self.path, number, version=store.version)
            found.append(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(question)).answer(shard))))
        if None in found and not (partial and any(one is not None for one in found)):
            raise RetrError(f"shard {found.index(None)} did not answer")
        return found

    def prepare(self, store):
        self.prepared.append(store.version)

    def close(self):
        self.closed = True
