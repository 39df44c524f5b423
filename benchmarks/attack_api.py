"""What strangers send to every route of the API: ``python -m retr.benchmarks.attack_api --tries 400``.

schemathesis makes requests out of the server's own OpenAPI description, half of them as it allows and half of them not,
and compares each answer with it: no internal error, no status, header, media type or shape that is not declared, and
nothing accepted that the description forbids. The server is asked in process, without a socket. Half of the requests
that the description allows name rows, columns and conditions that exist, so that more than refusals is looked at. Each
route is asked by the machine's own user, with a token that may read, and without any; without one only the routes that
need none may answer.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning, Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from retr.benchmarks.record import record
from retr.sample import sample_encoder, sample_index
from retr.serve.app import create_app
from retr.serve.settings import Settings
from retr.serve.tokens import make_token

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
HOST = "http://localhost:7860"
# of the routes' own refusals: those of a server that is busy or slow are no fault, and must not come here
OPEN = {"/healthz", "/readyz"}


class Tally:
    """How many requests were sent, what was answered, and what was wrong with it."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.slowest = 0.0

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return sum(self.statuses.values())


def main() -> None:
    """Run it and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=100, help="requests of each route, kind and token")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for who in ("local", "reader", "stranger"):
        tally = attack(who, options.tries)
        figures[who] = {
            "requests": tally.requests,
            "failures": len(tally.failures),
            "statuses": dict(sorted(tally.statuses.items())),
            "slowest_ms": round(1000 * tally.slowest),
        }
        for place, text in tally.failures.items():
            print(f"{who}: {place}: {text}")
    record("attack_api", figures, command=f"python -m retr.benchmarks.attack_api --tries {options.tries}")


def attack(who: str, tries: int) -> Tally:
    """Ask every route as ``local``, ``reader`` or ``stranger``, so many times a kind."""
    index, tally = sample_index(), Tally()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokens"
        token = make_token(file, "anna", frozenset({"read"}))
        further: dict[str, Any] = {} if who == "local" else {"token_file": file}
        setup = Settings(rate=1e9, burst=10**9, additions=Path(folder) / "added", **further)
        app: Any = create_app({"sample": index.path}, setup, {"encoder": sample_encoder()})
        schema: Any = schemathesis.openapi.from_dict(app.openapi())
        schema.app = app
        with asgi.get_client(app) as session:
            if who == "reader":
                session.headers["authorization"] = f"Bearer {token}"
            try:
                for mode in GenerationMode:
                    for result in schema.get_all_operations():
                        _ask(result.ok(), mode, session, tally, tries, refused=who == "stranger")
            finally:
                asgi.shutdown_lifespans()
    return tally


def _ask(operation: Any, mode: GenerationMode, session: Any, tally: Tally, tries: int, *, refused: bool) -> None:
    """Send requests of one route and kind."""
    named = st.booleans() if mode is GenerationMode.POSITIVE else st.just(False)
    # any other name is answered alike
    path = {"index": "sample"} if "{index}" in operation.path else None

    @given(operation.as_strategy(generation_mode=mode, path_parameters=path), named, st.data())
    @settings(
        max_examples=tries,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def one(case: Any, known: bool, data: Any) -> None:
        if known:
            case.query, case.body = _known(case.query, data), _known(case.body, data)
        began = time.perf_counter()
        place = f"{mode.value} {operation.label}"
        try:
            answer = case.call(base_url=HOST, session=session)
        except Exception as error:  # noqa: BLE001 - counted, as every other failure
            tally.failures.setdefault(f"{place} {type(error).__name__}", str(error))
            return
        tally.slowest = max(tally.slowest, time.perf_counter() - began)
        tally.statuses[str(answer.status_code)] += 1
        if refused and operation.path not in OPEN and answer.status_code != 401:
            tally.failures.setdefault(f"{place} looks at what a stranger sends", str(answer.status_code))
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                tally.failures.setdefault(f"{place} {failure.title}", f"{failure.message} {answer.text[:200]}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)
        try:
            one()
        except Unsatisfiable:
            # what has no parameter cannot be asked wrongly
            return


_PNG = base64.b64encode((sample_index().path.parent / "healthy/P01-left.png").read_bytes()).decode()
_REAL: dict[str, list[Any]] = {
    "parts": [[{"id": "healthy/P01-left.png"}], [{"data": _PNG}], [{"vector": [0.5] * 48, "weight": 2}]],
    "pictures": [[{"data": _PNG}], [{"data": _PNG, "crop": [0, 0, 0.5, 0.5]}]],
    "id": ["healthy/P01-left.png", "glaucoma/P00-right.png"],
    "where": [None, "age < 50", "label = 'healthy' and age > 30"],
    "exclude_same": [None, {"patient": None}, {"patient": "P01"}],
    "one_per": [None, "patient", "label"],
    "columns": [None, ["label", "age"]],
    "by": ["label"],
    "label": ["label", "patient"],
    "like": [[], ["healthy/P01-left.png"]],
    "unlike": [[], ["healthy/P03-left.png"]],
}


def _known(value: Any, data: Any) -> Any:
    """Return a request in which names that the index has stand where the description allows any."""
    if isinstance(value, list):
        return [_known(one, data) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: data.draw(st.sampled_from(_REAL[name])) if name in _REAL else _known(one, data)
        for name, one in value.items()
    }


if __name__ == "__main__":
    main()
