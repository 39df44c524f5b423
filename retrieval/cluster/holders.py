"""The shards of one index, held by processes of a Ray cluster: what a store asks in place of its own vectors.

Each shard has a process, spread over the machines in turn; one whose machine is lost begins anew on another (Ray starts
it, and hands it what it was asked), and opens the state that is asked for. A shard that does not answer in time is an
error with its number.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from retr.index.disk.shards import of_shard
from retr.index.errors import RetrError, UsageError
from retr.retrieval.cluster.connection import Connection
from retr.retrieval.cluster.holder import Holder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retr.index.scatter import Question
    from retr.index.store import Store

Found = TypeVar("Found")


class Holders:
    """A `retr.index.scatter.Remote`.

    Parameters
    ----------
    address
        ``HOST:PORT`` of the head, or ``auto``.
    store
        The whole index, whose folder all machines see under the same name.
    seconds
        How long a shard may take.
    connect
        Returns the connection to an address.

    Raises
    ------
    MissingExtraError, RetrError
        Ray is not installed, or there is no cluster.
    UsageError
        ``seconds`` is not above 0.
    """

    def __init__(
        self, address: str, store: Store, seconds: float, connect: Callable[[str], Connection] = Connection
    ) -> None:
        if not 0 < seconds < float("inf"):
            raise UsageError(f"the seconds that a shard may take must be above 0, got: {seconds!r}")
        self._path, self._seconds = store.path, seconds
        self._connection = connect(address)
        self._lock = threading.Lock()
        self._actors: list[Any] = []
        self._closed = False
        try:
            self._staff(len(manifests_of(store)))
        except BaseException:
            self._connection.close()
            raise
        # begun now, and waited for by who asks first
        self._opening = self._begin(store)

    def ask(self, store: Store, questions: Sequence[Question[Found]], *, partial: bool) -> list[Found | None]:
        """See `retr.index.scatter.Remote.ask`."""
        manifests = manifests_of(store)
        actors = self._staff(len(manifests))
        refs = [
            actor.answer.remote(manifest, question)
            for actor, manifest, question in zip(actors, manifests, questions, strict=True)
        ]
        ray = self._connection.ray
        there = set(ray.wait(refs, num_returns=len(refs), timeout=self._seconds)[0])
        found: list[Found | None] = []
        late, gone = [], []
        for number, ref in enumerate(refs):
            found.append(None)
            if ref not in there:
                late.append(number)
                # it shall not be worked on once its process is there again
                with suppress(Exception):
                    ray.cancel(ref)
                continue
            try:
                found[number] = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, RetrError):
                    raise error.cause from None
                raise RetrError(
                    f"shard {number} of {self._path.name!r} failed: {type(error.cause).__name__}",
                    hint="install the same version of retr and its packages on all machines",
                ) from None
            except ray.exceptions.RayError:
                gone.append(number)
                self._forget(number, actors[number])
        if (late or gone) and not (partial and there - {refs[number] for number in gone}):
            raise self._unanswered(late, gone)
        return found

    def prepare(self, store: Store) -> None:
        """See `retr.index.scatter.Remote.prepare`; waits for the shards as long as a question does."""
        with suppress(RetrError):
            self._staff(len(manifests_of(store)))
            refs = self._begin(store)
            self._connection.ray.wait(refs, num_returns=len(refs), timeout=self._seconds)

    def close(self) -> None:
        """End the processes; nothing where that was done."""
        with self._lock:
            closed, self._closed = self._closed, True
            actors, self._actors = self._actors, []
        if closed:
            return
        for actor in actors:
            with suppress(Exception):
                self._connection.stop(actor)
        self._connection.close()

    def _unanswered(self, late: Sequence[int], gone: Sequence[int]) -> RetrError:
        numbers = sorted([*late, *gone])
        which = f"shard {numbers[0]}" if len(numbers) == 1 else f"the shards {', '.join(map(str, numbers))}"
        why = f" within {self._seconds:g} s" if late else ": its process ended"
        return RetrError(
            f"{which} of {self._path.name!r} did not answer{why}",
            hint="is every machine of the cluster up? ask again, with more --shard-seconds, or with --partial",
        )

    def _begin(self, store: Store) -> list[Any]:
        """Have all processes open a state; those of shards that it does not have let go of theirs."""
        manifests = manifests_of(store)
        with self._lock:
            actors = list(self._actors)
        wanted = [*manifests, *[None] * (len(actors) - len(manifests))]
        return [actor.prepare.remote(manifest) for actor, manifest in zip(actors, wanted, strict=True)]

    def _staff(self, count: int) -> list[Any]:
        """Return the processes of so many shards; those that are not there are started."""
        with self._lock:
            if self._closed:
                raise UsageError(f"the index {self._path.name!r} is closed", hint="open it again with `Index.open`")
            missing = [number for number in range(count) if number >= len(self._actors) or self._actors[number] is None]
            if missing:
                self._actors += [None] * (count - len(self._actors))
                places = self._connection.places()
                if not places:
                    raise RetrError("no machine of the cluster has a processor", hint="see `ray status`")
                held = Counter(places[number % len(places)].node for number in range(count))
                for number in missing:
                    place = places[number % len(places)]
                    threads = max(1, int(place.cpus) // held[place.node])
                    self._actors[number] = self._connection.hold(Holder, place, str(self._path), threads)
            return self._actors[:count]

    def _forget(self, number: int, actor: Any) -> None:
        """Let a process that Ray has given up be started anew by who asks next."""
        with self._lock:
            if number < len(self._actors) and self._actors[number] is actor:
                self._actors[number] = None


def manifests_of(store: Store) -> list[bytes]:
    """Return the manifest of each shard; of an index without shards its own."""
    found: list[bytes] = store.once("manifests of shards", lambda: _made(store))
    return found


def _made(store: Store) -> list[bytes]:
    whole = store.manifest
    shards = [of_shard(whole, number) for number in range(whole.shards)] or [whole]
    return [shard.to_bytes() for shard in shards]
