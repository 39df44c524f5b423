"""Ray, as far as it is used: a cluster that is running, its machines, and processes on them.

Nothing is started here, and no other address is asked than the one that is given.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import dataclass
from typing import Any

from retr.index.errors import RetrError, UsageError
from retr.index.machine.extras import needed


def ray_library() -> Any:
    """Return the module ``ray``; `MissingExtraError` where it is not installed."""
    # what nobody waits for any more is no line among a command's own
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    with needed():
        import ray
        from ray._private import worker

    # it would write what machines say of their end to standard output, among a command's own lines
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None
    return ray


@dataclass(frozen=True)
class Place:
    """Where a process runs: a machine, or one GPU of it.

    Attributes
    ----------
    node
        Ray's id of the machine.
    number
        Which of its processes.
    host
        The machine's name.
    cpus, gpus
        What the process takes of it.
    """

    node: str
    number: int
    host: str
    cpus: float
    gpus: int


# Questions that a process which holds something answers at a time.
_AT_ONCE = 8
# Seconds in which the head of a cluster takes a connection.
_SECONDS = 10.0
# a process has one connection to Ray, whoever uses it; the last leaves
_LOCK = threading.Lock()
_users: list[Connection] = []


def _require_listening(address: str) -> None:
    """Raise where nobody listens at an address: Ray itself asks again for a minute, and fills the screen meanwhile."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise UsageError(f"the address of a cluster is HOST:PORT or auto, got: {address!r}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS):
            return
    except OSError as error:
        raise RetrError(
            f"there is no Ray cluster at {address!r}: {error.strerror or type(error).__name__}",
            hint="start one with `ray start --head` (docs/howto/many-machines.md)",
        ) from None


class Connection:
    """A connection to a running cluster; when the last of a process is closed, what this process started ends.

    Parameters
    ----------
    address
        ``HOST:PORT`` of the head, or ``auto`` for the cluster that runs on this machine.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    RetrError
        There is no cluster.
    """

    def __init__(self, address: str) -> None:
        if "://" in address:
            raise UsageError(f"the address of a cluster is HOST:PORT or auto, got: {address!r}")
        self.ray, self.address = ray_library(), address
        with _LOCK:
            if other := next((one.address for one in _users if one.address != address), None):
                raise UsageError(f"a process uses one cluster at a time: {other!r}, got: {address!r}")
            self._own: bool = _users[0]._own if _users else not self.ray.is_initialized()
            if self._own and not _users:
                self._join()
            _users.append(self)

    def _join(self) -> None:
        if self.address != "auto":
            _require_listening(self.address)
        try:
            self.ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise RetrError(
                f"there is no Ray cluster at {self.address!r}, or it cannot be joined: {type(error).__name__}",
                hint="start one with `ray start --head`, of the same version of Ray (RAY_AUTH_MODE=token if it "
                "asks for a token): docs/howto/many-machines.md",
            ) from None

    def places(self) -> list[Place]:
        """Return where processes can run: on each GPU, or once on a machine without one."""
        found = []
        for node in self.ray.nodes():
            cpus, gpus = float(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))
            if node["Alive"] and (cpus or gpus):
                each = max(gpus, 1)
                one = node["NodeID"], node["NodeManagerHostname"], cpus / each, int(gpus > 0)
                found += [Place(one[0], number, *one[1:]) for number in range(each)]
        return found

    def start(self, kind: type, place: Place, *arguments: Any) -> Any:
        """Start a process, which ends with this one; return its handle."""
        with needed():
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": place.cpus,
            "num_gpus": place.gpus,
            "max_restarts": 0,
            # the next unit is read while the network has the last
            "max_concurrency": 2,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=False),
        }
        return self.ray.remote(kind).options(**options).remote(*arguments)

    def hold(self, kind: type, place: Place, *arguments: Any) -> Any:
        """Start a process that holds something, and begins anew elsewhere when its machine is lost; return its handle.

        What it is asked meanwhile waits for it. It takes no processor from what else the cluster does.
        """
        with needed():
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": 0,
            "max_restarts": -1,
            "max_task_retries": -1,
            "max_concurrency": _AT_ONCE,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=True),
        }
        return self.ray.remote(kind).options(**options).remote(*arguments)

    def stop(self, actor: Any) -> None:
        """End a process."""
        self.ray.kill(actor)

    def close(self) -> None:
        """Leave the cluster; nothing where that was done."""
        with _LOCK:
            if self not in _users:
                return
            _users.remove(self)
            if self._own and not _users:
                self.ray.shutdown()
