"""One build on a Ray cluster, in a process of its own that can be killed; importable on the cluster's machines, too."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from fake_encoder import FakeEncoder


def elsewhere():
    """Return whether this is a process of the cluster."""
    return "RAY_JOB_ID" in os.environ or "RAY_RAYLET_PID" in os.environ


class Gated(FakeEncoder):
    """An encoder that stops, in each process of a cluster, before a batch, until a file ``open`` is in a folder.

    Each process that stands there has left a file of its number in the folder.
    """

    def __init__(self, gate, batches):
        super().__init__()
        self.gate, self.left = gate, batches

    def encode_prepared(self, batch):
        if elsewhere():
            self.left -= 1
            if self.left < 0:
                (Path(self.gate) / str(os.getpid())).touch()
                while not (Path(self.gate) / "open").exists():
                    time.sleep(0.01)
        return super().encode_prepared(batch)


class ElsewhereOther(FakeEncoder):
    """An encoder whose weights are others in the processes of a cluster."""

    def __setstate__(self, state):
        vars(self).update(state)
        if elsewhere():
            self.info = replace(self.info, weights_sha256="1" * 64)


def main():
    from retr.index.errors import RetrError
    from retr.retrieval.index import Index

    asked = json.loads(sys.argv[1])
    encoder = ElsewhereOther() if asked.pop("other", False) else Gated(asked.pop("gate"), asked.pop("batches"))
    try:
        report = Index.build(asked.pop("archive"), asked.pop("index"), encoder=encoder, progress=True, **asked).report
    except RetrError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(json.dumps({"rows": report.rows, "unchanged": report.unchanged}))


if __name__ == "__main__":
    main()
