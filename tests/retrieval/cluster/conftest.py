"""A Ray cluster of two nodes on this machine, each test module's own."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from patience import LONG, free_port, until

TESTS = Path(__file__).parents[2]
# a node that is gone is noticed within two seconds, and its processes do not stand back behind all others
QUICK = {
    "RAY_worker_niceness": "0",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}


class TwoNodes:
    """A head and a second node, each of one CPU."""

    def __init__(self, folder, environment):
        self.address = f"127.0.0.1:{free_port()}"
        self._folder, self.environment = folder, environment
        port = self.address.partition(":")[2]
        self._nodes = [self._start("--head", "--port", port, "--include-dashboard", "false", "--temp-dir", str(folder))]
        self.second = self.driver = None

    def _start(self, *options):
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1"]
        common = ["--node-ip-address", "127.0.0.1", "--object-store-memory", "80000000", "--disable-usage-stats"]
        with (self._folder / "nodes.log").open("a") as log:
            return subprocess.Popen(
                [*command, *common, *options],
                env=self.environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def until_it_listens(self):
        host, _, port = self.address.partition(":")

        def listens():
            with socket.socket() as one:
                return one.connect_ex((host, int(port))) == 0

        until(listens)

    def start_second(self):
        self.second = self._start("--address", self.address)
        self._nodes.append(self.second)

    def kill(self, node):
        """Kill every process of a node, each by its own number, those first that would start others."""
        own = [int(line) for line in _output("ps", "-o", "pid=", "-s", str(node.pid)).split()]
        for pid in own:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait(LONG)

    def close(self):
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
            self.driver.communicate()
        for node in reversed(self._nodes):
            self.kill(node)


def _output(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    own = tmp_path_factory.mktemp("own")
    (own / "key").write_text("0123456789abcdef" * 2)
    python = os.pathsep.join([str(TESTS), str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    here = {"RETR_STATE_DIR": str(own), "XDG_CONFIG_HOME": str(own), "RETR_KEY_FILE": str(own / "key")}
    # a token of its own: one that lies in the user's folder would be asked for, and no other process has that
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {
        **os.environ,
        **QUICK,
        **here,
        **secret,
        "PYTHONPATH": python,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def cluster(environment):
    # not below pytest's folder: the paths of sockets are short
    with tempfile.TemporaryDirectory(prefix="rr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        nodes = TwoNodes(Path(folder), environment)
        try:
            yield nodes
        finally:
            nodes.close()
