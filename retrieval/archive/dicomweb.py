"""An archive that lies in a PACS, over DICOMweb: ``dicomweb://host[:port]/path``, with TLS ``dicomwebs://...``.

QIDO-RS lists the studies, in the order of their days, and the instances of each; WADO-RS fetches an instance, as it is
stored. What follows ``?`` narrows the studies: ``dicomweb://pacs/dicom-web?StudyDate=20240101-``. Over DIMSE nothing is
asked.

UIDs identify a patient, so no id is made of them: an instance is ``STUDY/INSTANCE.dcm``, the beginnings of the keyed
hashes of both. The same key finds an instance again: its study among all studies, and the instance in it. An instance
is unchanged as long as what the server says of it and of its study is (as a keyed hash, the row's mark): by the
standard, other pixels are another instance.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from retr.index.errors import UsageError
from retr.index.machine.extras import needed
from retr.index.machine.hash_key import agreed_key, keyed_hash
from retr.retrieval.archive.dicomweb_http import Address, Exchange, RefusedAnswerError, single_part
from retr.retrieval.archive.remote import again
from retr.retrieval.archive.sources import UNTOLD, Bytes, Entry, Item, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_PATIENT, _DAY, _COUNT, _MODALITIES, _CLASS = "00100020", "00080020", "00201208", "00080061", "00080016"
# what is asked beside what every server gives; together with it, what a change would show in
_OF_A_STUDY = (_PATIENT, _DAY, _MODALITIES, _COUNT, "00080050", "00100030", "00100040")
_OF_AN_INSTANCE = (_CLASS, _SERIES, "00080060", "00200013", "00280008", "00280010", "00280011", "00280100")
# of these classes no object has pixels: waveforms, reports, presentation states, plans and structures, documents
_PICTURELESS = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(9|11|66|88|104|481\.(3|5|8))(\.|$)")
_FINAL = (RefusedAnswerError,)
# hex digits of an id: of the study, and of the instance
_SHORT, _LONG = 16, 32
STUDIES_A_PAGE, INSTANCES_A_PAGE = 500, 1000
MAX_STUDIES, MAX_INSTANCES = 2_000_000, 100_000
# instances whose UIDs are in memory, beside those of the study that was listed last
REMEMBERED = 50_000
# seconds before all studies are listed again for one that is not among them
_AGAIN = 60.0


@dataclass(frozen=True, slots=True)
class _Study:
    """A study as it was listed; ``said`` is what the server says of it, ``expected`` how many instances it has."""

    day: str
    folder: str
    uid: str
    patient: str
    said: str
    expected: int | None


@dataclass(frozen=True, slots=True)
class _Instance:
    """An instance as it was listed."""

    path: str
    series: str
    uid: str
    said: str
    has_pixels: bool


class DicomWebSource:
    """The instances of a DICOMweb server.

    Parameters
    ----------
    url
        The server's address.
    key
        Returns the key of hashed identifiers; by default the user's own.

    Raises
    ------
    UsageError
        The address or the environment's credentials cannot be meant.
    MissingExtraError
        The extra ``pacs`` is not installed.
    """

    parallel = 4
    """Requests at a time: few enough for a server that others work with."""

    def __init__(self, url: str, key: Callable[[], bytes] | None = None) -> None:
        self._address = Address.of(url)
        self.location = self._address.location
        self.whole = not self._address.filters
        self._key = cache(key or (lambda: agreed_key(None, make=True)))
        self._exchange = Exchange(self._address, self.parallel)
        self._client = _client(self._address.url, self._exchange)
        self._lock = threading.Lock()
        self._listing_all, self._all_listed = threading.Lock(), -_AGAIN
        self._studies: dict[str, _Study] = {}
        self._instances: OrderedDict[str, dict[str, _Instance]] = OrderedDict()

    def entries(self) -> Iterator[Entry]:
        """List the instances, study by study: by day, then by id."""
        studies = deque(sorted(self._list_studies(self._address.filters), key=lambda study: (study.day, study.folder)))
        waiting: deque[tuple[_Study, Any]] = deque()
        with ThreadPoolExecutor(self.parallel, thread_name_prefix="dicomweb") as pool:
            try:
                while studies or waiting:
                    while studies and len(waiting) < 2 * self.parallel:
                        study = studies.popleft()
                        waiting.append((study, pool.submit(self._list_instances, study)))
                    study, listed = waiting.popleft()
                    try:
                        found: Sequence[_Instance] = listed.result()
                    except PermissionError:
                        yield Skipped(study.folder, "no permission")
                    except OSError:
                        yield Skipped(study.folder, "unreadable")
                    else:
                        yield from (self._entry(study, instance) for instance in found)
            finally:
                for _, listed in waiting:
                    listed.cancel()

    def count(self) -> int | None:
        """Return None: counting would be listing."""
        return None

    def read(self, path: str) -> Bytes:
        """Fetch one instance.

        Raises
        ------
        ImageReadError
            The server gives another instance.
        OSError
            It gives none.
        """
        study, instance = self._find(path)
        where = f"{self._address.url}/studies/{study.uid}/series/{instance.series}/instances/{instance.uid}"
        accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}

        def fetch() -> bytes:
            response = self._exchange.get(where, accept)
            return single_part(response.headers.get("Content-Type", ""), response.content)

        data = again(fetch, _FINAL)
        _require_instance(data, study.uid, instance.uid)
        return data, len(data), None

    def relative(self, path: str) -> str:
        """Return a table's ``STUDY UID/INSTANCE UID``, with the series between them or without, as `entries` names it.

        What is written otherwise is returned as it is.
        """
        parts = path.strip().removesuffix(".dcm").split("/")
        if len(parts) not in {2, 3} or not all(map(_UID.fullmatch, parts)):
            return path
        return self._path(self._hash(parts[0])[:_SHORT], parts[-1])

    def _list_studies(self, filters: Mapping[str, str]) -> Sequence[_Study]:
        """List the studies that the filters let through."""

        def page(offset: int) -> list[Any]:
            return self._client.search_for_studies(  # type: ignore[no-any-return]
                limit=STUDIES_A_PAGE, offset=offset, fields=list(_OF_A_STUDY), search_filters=dict(filters)
            )

        try:
            records = self._pages(page, _STUDY, STUDIES_A_PAGE, MAX_STUDIES, None)
        except FileNotFoundError:
            raise UsageError(
                f"archive {self.location!r} does not exist", hint="give the path under which the server has QIDO-RS"
            ) from None
        except OSError as error:
            raise UsageError(
                f"archive {self.location!r} cannot be listed: {error.args[-1]}", hint="check the address and the server"
            ) from None
        studies = [self._study(uid, record, filters) for uid, record in records.items()]
        with self._lock:
            self._studies.update((study.folder, study) for study in studies)
        return studies

    def _study(self, uid: str, record: Mapping[str, Any], filters: Mapping[str, str]) -> _Study:
        for keyword, value in filters.items():
            if not _passes(record, keyword, value):
                raise UsageError(
                    f"archive {self.location!r} gives studies that {keyword} leaves out",
                    hint="the server does not know this filter: leave it out",
                )
        counted = _text(record, _COUNT)
        return _Study(
            day=_text(record, _DAY),
            folder=self._hash(uid)[:_SHORT],
            uid=uid,
            patient=_text(record, _PATIENT),
            said=json.dumps([_text(record, tag) for tag in _OF_A_STUDY if tag not in {_COUNT, _MODALITIES}]),
            expected=int(counted) if counted.isdecimal() else None,
        )

    def _list_instances(self, study: _Study) -> Sequence[_Instance]:
        """List the instances of a study, by path."""

        def page(offset: int) -> list[Any]:
            return self._client.search_for_instances(  # type: ignore[no-any-return]
                study.uid, limit=INSTANCES_A_PAGE, offset=offset, fields=list(_OF_AN_INSTANCE)
            )

        records = self._pages(page, _INSTANCE, INSTANCES_A_PAGE, MAX_INSTANCES, study.expected)
        found = {}
        for uid, record in records.items():
            series = _text(record, _SERIES)
            if not _UID.fullmatch(series):
                raise RefusedAnswerError("an instance without its series")
            said = json.dumps([study.said, [_text(record, tag) for tag in _OF_AN_INSTANCE]])
            path = self._path(study.folder, uid)
            found[path] = _Instance(path, series, uid, said, not _PICTURELESS.match(_text(record, _CLASS)))
        with self._lock:
            self._instances[study.folder] = found
            self._instances.move_to_end(study.folder)
            while len(self._instances) > 1 and sum(map(len, self._instances.values())) > REMEMBERED:
                self._instances.popitem(last=False)
        return [found[path] for path in sorted(found)]

    def _entry(self, study: _Study, instance: _Instance) -> Entry:
        if not instance.has_pixels:
            return Skipped(instance.path, "no pixels", was_read=True)
        whose = {"patient": study.patient, "study": study.uid, "series": instance.series, "instance": instance.uid}
        return Item(instance.path, UNTOLD, 0.0, mark=self._hash(instance.said)[:_LONG], identifiers=whose)

    def _find(self, path: str) -> tuple[_Study, _Instance]:
        """Find an instance again: its study among all, and the instance in it."""
        folder = path.partition("/")[0]
        with self._lock:
            study = self._studies.get(folder)
            instance = self._instances.get(folder, {}).get(path)
        if study is None:
            # one thread asks for all studies, and the others find what it has found
            with self._listing_all:
                if folder not in self._studies and time.monotonic() > self._all_listed + _AGAIN:
                    self._list_studies({})
                    self._all_listed = time.monotonic()
                study = self._studies.get(folder)
            if study is None:
                raise FileNotFoundError(path)
        if instance is None:
            instance = next((one for one in self._list_instances(study) if one.path == path), None)
        if instance is None:
            raise FileNotFoundError(path)
        return study, instance

    def _pages(
        self, page: Callable[[int], list[Any]], tag: str, size: int, most: int, expected: int | None
    ) -> dict[str, Mapping[str, Any]]:
        """Ask for one page after the other; return the records by their UIDs.

        Raises
        ------
        RefusedAnswerError
            An answer is no list of records, there are too many, or the server gives the same page again.
        OSError
            There is no answer.
        """
        found: dict[str, Mapping[str, Any]] = {}
        while True:
            records, more = again(partial(self._records, page, len(found)), _FINAL)
            new = {_uid(record, tag): record for record in records}
            fresh = new.keys() - found.keys()
            if records and not fresh and (more or len(records) == size):
                raise RefusedAnswerError("it gives the same page again and again; narrow the studies with ?StudyDate=")
            found.update(new)
            if len(found) > most:
                raise RefusedAnswerError(f"it lists more than {most}; narrow the studies with ?StudyDate=")
            if not fresh or len(records) > size or len(found) == expected:
                return found

    def _records(self, page: Callable[[int], list[Any]], offset: int) -> tuple[list[Any], bool]:
        """Return one page, and whether the server says that there is more."""
        try:
            records = page(offset)
        except (ValueError, RecursionError, MemoryError):
            raise RefusedAnswerError("its answer is not JSON, or too deep") from None
        if not isinstance(records, list):
            raise RefusedAnswerError("its answer is no list")
        return records, self._exchange.more

    def _path(self, folder: str, uid: str) -> str:
        return f"{folder}/{self._hash(uid)[:_LONG]}.dcm"

    def _hash(self, text: str) -> str:
        return keyed_hash(self._key(), text)


def _client(url: str, exchange: Exchange) -> Any:
    import logging

    with needed():
        from dicomweb_client.web import DICOMwebClient
    # it logs addresses, which hold UIDs
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)
    client = DICOMwebClient(url, session=exchange, permissive_uid=True)
    client.set_http_retry_params(retry=False)
    return client


def _uid(record: Any, tag: str) -> str:
    uid = _text(record, tag) if isinstance(record, dict) else ""
    # it becomes part of an address
    if len(uid) > 64 or not _UID.fullmatch(uid):
        raise RefusedAnswerError("its answer has a record without a UID")
    return uid


def _values(record: Mapping[str, Any], tag: str) -> list[str]:
    """Return an attribute's values as texts, none where it has none; of a name, its first writing."""
    attribute = record.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    plain = [value for value in values if isinstance(value, str | int | float)] if isinstance(values, list) else []
    return [str(value).strip(" \0")[:1024] for value in plain]


def _text(record: Mapping[str, Any], tag: str) -> str:
    return "\\".join(_values(record, tag)[:64])


def _passes(record: Mapping[str, Any], keyword: str, value: str) -> bool:
    """Return whether a study is one that a filter lets through, as far as the answer tells."""
    if keyword == "StudyDate":
        first, dash, last = value.partition("-")
        day = _text(record, _DAY)
        return day == first if not dash else (first or "0") <= day <= (last or "9")
    tags = {"ModalitiesInStudy": _MODALITIES, "PatientID": _PATIENT, "StudyInstanceUID": _STUDY}
    found = _values(record, tags.get(keyword, "00080050"))
    wild = any(sign in value for sign in "*?\\,")
    # a server may leave out what it was not asked to match, and may match without regard to case
    return wild or not found or value.lower() in {one.lower() for one in found}


def _require_instance(data: bytes, study: str, instance: str) -> None:
    """Refuse a file that is another instance than the one that was asked for, or another patient's."""
    from retr.retrieval.images.dicom_identity import instance_of
    from retr.retrieval.images.picture import read_error

    if instance_of(data) != (study, instance):
        raise read_error("not what was asked for", None)
