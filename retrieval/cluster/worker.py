"""One process of a cluster: reads files of an archive that it sees as all others do, and embeds their pictures.

It writes nothing: what it made goes back to who asked, who alone commits (`retr.retrieval.cluster.coordinator`).
"""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retr.index.errors import RetrError, UsageError
from retr.retrieval.archive.opening import open_source
from retr.retrieval.ingest.away import AwayEmbedder
from retr.retrieval.ingest.parts import UserKey
from retr.retrieval.ingest.staged import digest, settings_of, to_bytes
from retr.retrieval.transforms.transform import without_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retr.retrieval.archive.sources import Item
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.ingest.away import How


@dataclass(frozen=True)
class Task:
    """What every process is told.

    Attributes
    ----------
    archive, image_column, path_column
        Where the files are, as `open_source` takes it.
    load
        Loads the encoder.
    how
        How files become vectors.
    key
        The fingerprint of the key of hashed identifiers.
    first, sha256
        A file of the archive and what is in it, for a process that sees another archive to notice; None where that
        cannot be read.
    """

    archive: str
    image_column: str | None
    path_column: str | None
    load: Callable[[], BaseEncoder]
    how: How
    key: str
    first: str
    sha256: str | None


@dataclass(frozen=True)
class Ready:
    """What a process says once it has loaded the encoder: on which machine it is, and what decides its rows."""

    host: str
    device: str
    settings: dict[str, Any]


class Worker:
    """Made by Ray, one a machine or a GPU."""

    def __init__(self, task: Task, workers: int) -> None:
        self._task, self._workers = task, workers

    def ready(self) -> Ready:
        """Load the encoder and look at the archive.

        Raises
        ------
        RetrError
            One is not here, or is another one.
        """
        task, host = self._task, socket.gethostname()
        try:
            encoder = without_transform(task.load())
            key = UserKey(task.key)
            source = open_source(task.archive, path_column=task.path_column, image_column=task.image_column, key=key)
            if task.sha256 is not None and hashlib.sha256(source.read(task.first)[0]).hexdigest() != task.sha256:
                raise UsageError("its archive is another one", hint="mount the same archive under the same name")
        except OSError as error:
            said = f"the machine {host!r} does not see the archive: {error.strerror or type(error).__name__}"
            raise UsageError(said, hint="mount it there under the same name") from None
        except RetrError as error:
            raise UsageError(f"the machine {host!r} cannot embed: {error.message}", hint=error.hint) from None
        settings = settings_of(encoder, task.how, task.image_column, None)
        self._settings, self._key = digest(settings), key
        self._embedder = AwayEmbedder(source, encoder, task.how, key, self._workers)
        return Ready(host, encoder.info.device, settings)

    def embed(self, asked: Sequence[tuple[Item, str | None]]) -> bytes:
        """Read files and embed their pictures; of each it is said which sha256 the index holds under its path.

        Returns
        -------
        bytes
            Of a unit (`retr.retrieval.ingest.staged`).
        """
        found = self._embedder.embed([(item, _Same(sha256)) for item, sha256 in asked])
        return to_bytes([item for item, _ in asked], found, self._settings, self._key.fingerprint)


@dataclass(frozen=True)
class _Same:
    held: str | None

    def __call__(self, sha256: str) -> bool:
        return sha256 == self.held
