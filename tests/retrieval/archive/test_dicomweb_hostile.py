"""A DICOMweb server that does what no honest one does, on the loopback."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest
from dicom_file import dicom
from fake_encoder import FakeEncoder
from hypothesis import given
from hypothesis import strategies as st
from patience import LONG

from retr.index.errors import UsageError
from retr.retrieval.archive import dicomweb, dicomweb_http, remote
from retr.retrieval.archive.dicomweb import DicomWebSource
from retr.retrieval.archive.dicomweb_http import Address, RefusedAnswerError, single_part
from retr.retrieval.archive.opening import open_source
from retr.retrieval.archive.sources import Item, Skipped
from retr.retrieval.ingest.build import build
from retr.retrieval.ingest.decode import Decoder, read_for
from retr.retrieval.read_options import ReadOptions

STUDY, SERIES, INSTANCE = "1.2.1", "1.2.1.1", "1.2.3.1"
JSON = {"Content-Type": "application/dicom+json"}


def file_of(number: int = 0, **attributes: str) -> bytes:
    data = pydicom.dcmread(io.BytesIO(dicom("P1", number)))
    for name, value in attributes.items():
        setattr(data, name, value)
    file = io.BytesIO()
    data.save_as(file)
    return file.getvalue()


def listed(**values: object) -> dict[str, object]:
    """A record as a server lists it."""
    tags = {"study": "0020000D", "series": "0020000E", "instance": "00080018", "day": "00080020", "count": "00201208"}
    return {tags[name]: {"vr": "UI", "Value": [value]} for name, value in values.items()}


def part(data: bytes, boundary: str = "b0unda1y") -> tuple[int, dict[str, str], bytes]:
    body = (
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data + f"\r\n--{boundary}--\r\n".encode()
    )
    return 200, {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}, body


class Server:
    """Answers as it is told; ``studies``, ``instances`` and ``files`` are what it says, of each the honest answer."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.studies = lambda query: (200, JSON, self.page(query, [listed(study=STUDY, day="20240101", count=1)]))
        self.instances = lambda query: (
            200,
            JSON,
            self.page(query, [listed(study=STUDY, series=SERIES, instance=INSTANCE)]),
        )
        self.files = lambda query: part(file_of())

    @staticmethod
    def page(query: dict[str, list[str]], records: list[object]) -> bytes:
        start = int(query.get("offset", ["0"])[0])
        return json.dumps(records[start : start + int(query["limit"][0])]).encode()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    told = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            parts = urlsplit(self.path)
            told.seen.append((self.path, dict(self.headers)))
            kind = told.studies if parts.path.endswith("/studies") else told.instances
            answer = (told.files if "/series/" in parts.path else kind)(parse_qs(parts.query))
            if answer is None:
                self.close_connection = True
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if isinstance(body, bytes):
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                body = [body]
            else:
                self.close_connection = True
                self.end_headers()
            with contextlib.suppress(OSError):
                for piece in body:
                    self.wfile.write(piece)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        told.url = f"dicomweb://127.0.0.1:{running.server_address[1]}/dw"
        yield told
        running.shutdown()
        thread.join()


def endless(start: bytes = b"["):
    yield start
    while True:
        yield b" " * 65536


def refusal(server) -> str:
    with pytest.raises(UsageError) as caught:
        list(DicomWebSource(server.url).entries())
    text = str(caught.value)
    assert "\n" not in text and STUDY not in text
    return text


def test_an_honest_answer_is_read(server, tmp_path):
    assert build(server.url, tmp_path / "index", FakeEncoder()).rows == 1
    assert {headers["Accept-Encoding"] for _, headers in server.seen} == {"identity"}
    assert {headers["Host"] for _, headers in server.seen} == {server.url.split("/")[2]}
    assert not [headers for _, headers in server.seen if "Authorization" in headers]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((302, {"Location": "http://127.0.0.1:1/elsewhere"}, b""), "leads to another address"),
        ((301, {"Location": "/dw/studies/"}, b""), "leads to another address"),
        ((200, {"Content-Encoding": "gzip"}, gzip.compress(b"[" + b" " * 1_000_000 + b"]")), "compressed"),
        ((200, {"Content-Length": "99999999999"}, iter([b"[]"])), "more than 0 MiB"),
        ((200, {"Content-Length": "9" * 400}, iter([b"[]"])), "more than 0 MiB"),
        ((200, {"Content-Length": "-5"}, iter([b"[]"])), "more than"),
        ((200, {}, endless()), "more than 0 MiB"),
        ((200, JSON, b"[" * 100_000), "not JSON, or too deep"),
        ((200, JSON, b"[1" + b"0" * 5000 + b"]"), "not JSON, or too deep"),
        ((200, JSON, b"[{\xff"), "not JSON, or too deep"),
        ((200, {"Content-Type": "text/html"}, b"<html>"), "not JSON, or too deep"),
        ((200, JSON, b'"studies"'), "no list"),
        ((200, JSON, b"[7]"), "without a UID"),
        ((200, JSON, b"[{}]"), "without a UID"),
        ((200, JSON, json.dumps([listed(study="../../admin")]).encode()), "without a UID"),
        ((200, JSON, json.dumps([listed(study="1.2?x=")]).encode()), "without a UID"),
        ((200, JSON, json.dumps([listed(study="1" * 65)]).encode()), "without a UID"),
        ((200, JSON, json.dumps([listed(study=["1.2"])]).encode()), "without a UID"),
        ((200, JSON, json.dumps([listed(study=f"1.{i}") for i in range(400)]).encode()), "lists more than 300"),
        ((200, {"Warning": '299 x "more"'}, json.dumps([listed(study="1.2")]).encode()), "the same page again"),
        ((401, {}, b""), "asks for a login"),
        ((403, {}, b""), "asks for a login"),
        ((404, {}, b""), "does not exist"),
        ((400, {}, b""), "refuses with status 400"),
        ((500, {}, b""), "did not answer in 5 tries"),
        ((200, {"Content-Length": "50"}, iter([b"[]"])), "did not answer in 5 tries"),
        (None, "did not answer in 5 tries"),
    ],
)
def test_a_listing_that_cannot_be_meant_is_refused(server, monkeypatch, answer, said):
    monkeypatch.setattr(dicomweb_http, "MAX_LISTING", 1_000_000)
    monkeypatch.setattr(dicomweb, "MAX_STUDIES", 300)
    server.studies = lambda query: answer
    assert said in refusal(server)
    # what will not change is asked once, or for a second page
    assert len(server.seen) <= (5 if "5 tries" in said else 2)


def test_an_answer_that_does_not_end_is_left(server, monkeypatch):
    monkeypatch.setattr(dicomweb_http, "PATIENCE", -1.0)
    server.studies = lambda query: (200, {}, iter([b"[", b"]"]))
    assert "does not end" in refusal(server)


def test_a_server_that_knows_no_filter_is_found_out(server):
    server.url += "?StudyDate=20240201-20240229"
    assert "gives studies that StudyDate leaves out" in refusal(server)


def test_a_server_that_pages_as_it_likes(server, monkeypatch):
    monkeypatch.setattr(dicomweb, "STUDIES_A_PAGE", 2)
    records = [listed(study=f"1.2.{i}", day="20240101", count=1) for i in range(5)]
    server.instances = lambda query: (200, JSON, json.dumps([listed(series=SERIES, instance=INSTANCE)]).encode())
    # neither limit nor offset: all at once
    server.studies = lambda query: (200, JSON, json.dumps(records).encode())
    assert len(list(DicomWebSource(server.url).entries())) == 5
    # fewer than were asked for
    server.studies = lambda query: (200, JSON, json.dumps(records[int(query["offset"][0]) :][:1]).encode())
    assert len(list(DicomWebSource(server.url).entries())) == 5
    # the limit without the offset: what is missing cannot be had
    server.studies = lambda query: (200, JSON, json.dumps(records[:2]).encode())
    assert "the same page again" in refusal(server)


@pytest.mark.parametrize(
    "answer",
    [
        (200, JSON, b"[{}]"),
        (200, JSON, json.dumps([listed(instance=INSTANCE)]).encode()),
        (200, JSON, json.dumps([listed(instance=INSTANCE, series="1.2/../..")]).encode()),
        (200, JSON, b"[[[["),
        (500, {}, b""),
        (302, {"Location": "http://127.0.0.1:1/"}, b""),
    ],
)
def test_a_study_that_cannot_be_listed_is_a_record(server, tmp_path, answer):
    build(server.url, tmp_path / "index", FakeEncoder())
    server.instances = lambda query: answer
    (entry,) = DicomWebSource(server.url).entries()
    assert isinstance(entry, Skipped)
    assert (entry.reason, entry.was_read, "/" in entry.path) == ("unreadable", False, False)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (part(file_of(SOPInstanceUID="1.2.3.99")), "not what was asked for"),
        (part(file_of(StudyInstanceUID="1.2.99")), "not what was asked for"),
        (part(b"no DICOM"), "not what was asked for"),
        ((200, {"Content-Type": "application/dicom"}, file_of()), "unreadable"),
        ((200, {"Content-Type": "multipart/related"}, file_of()), "unreadable"),
        ((200, {"Content-Type": "multipart/related; boundary=x"}, b"--x\r\n\r\n" + file_of()), "unreadable"),
        ((200, part(b"")[1], part(file_of())[2].replace(b"--\r\n", b"\r\n\r\n") + part(file_of())[2]), "unreadable"),
        ((200, part(b"")[1], b"\r\n--b0unda1y" * 20_000), "unreadable"),
        ((200, {**part(b"")[1], "Content-Length": "9999999"}, iter([b"x"])), "unreadable"),
        ((200, part(b"")[1], endless(b"--b0unda1y\r\n\r\n")), "unreadable"),
        ((200, {**part(b"")[1], "Content-Encoding": "gzip"}, gzip.compress(part(file_of())[2])), "unreadable"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "unreadable"),
        ((404, {}, b""), "missing"),
        ((403, {}, b""), "no permission"),
        (None, "unreadable"),
    ],
)
def test_an_instance_that_is_not_what_was_asked_for_is_a_record(server, monkeypatch, answer, why):
    monkeypatch.setattr(dicomweb_http, "MAX_INSTANCE", 1_000_000)
    server.files = lambda query: answer
    source = DicomWebSource(server.url)
    (item,) = source.entries()
    assert isinstance(item, Item)
    decode = Decoder(source, FakeEncoder(), lambda: b"0" * 32, lambda *_: False, lambda _: (), ReadOptions())
    assert read_for([(decode, item, 0)]) == [Skipped(item.path, why)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("dicomweb://ann:s3cret@pacs/dw", "holds no user and no password"),
        ("dicomweb://ann@pacs/dw", "holds no user and no password"),
        ("dicomweb://", "no address"),
        ("dicomweb:///dw", "no address"),
        ("dicomweb://pacs:99999/dw", "no address"),
        ("dicomweb://pa cs/dw", "no address"),
        ("dicomweb://pacs/dw\n", "no address"),
        ("dicomweb://pacs/dw#x", "no address"),
        ("dicomweb://[::1/dw", "no address"),
        ("dicomweb://pacs/dw?Name=x", "cannot be chosen by 'Name'"),
        ("dicomweb://pacs/dw?StudyDate=", "cannot be chosen by 'StudyDate'"),
        ("dicomweb://pacs/dw?StudyDate=2024-01-31", "a day or a range of days"),
    ],
)
def test_an_address_that_cannot_be_meant(url, said):
    with pytest.raises(UsageError) as caught:
        open_source(url)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_address_is_kept_without_what_narrows_it():
    found = Address.of("DICOMwebs://PACS.example:8443/a/?StudyDate=20240131&PatientID=P1")
    assert (found.url, found.location) == ("https://pacs.example:8443/a", "dicomwebs://pacs.example:8443/a")
    assert found.filters == {"StudyDate": "20240131", "PatientID": "P1"}
    assert Address.of("dicomweb://[::1]:8042/dw").url == "http://[::1]:8042/dw"


def test_logins_are_sent_to_nobody_who_could_be_overheard(server, monkeypatch, tmp_path):
    monkeypatch.setenv("RETR_DICOMWEB_TOKEN", "s3cret")
    for url in ("dicomweb://pacs.example/dw", "dicomweb://10.0.0.7/dw"):
        with pytest.raises(UsageError, match="would be sent unencrypted"):
            open_source(url)
    list(open_source(server.url).entries())
    assert {headers["Authorization"] for _, headers in server.seen} == {"Bearer s3cret"}
    for value in ("", "two words", "line\nbreak"):
        monkeypatch.setenv("RETR_DICOMWEB_TOKEN", value)
        with pytest.raises(UsageError, match="what no token has"):
            open_source("dicomwebs://pacs.example/dw")
    monkeypatch.setenv("RETR_DICOMWEB_TOKEN", "s3cret")
    monkeypatch.setenv("RETR_DICOMWEB_USER", "ann")
    with pytest.raises(UsageError, match="both set"):
        open_source(server.url)
    monkeypatch.delenv("RETR_DICOMWEB_TOKEN")
    with pytest.raises(UsageError, match="one alone is set"):
        open_source(server.url)
    monkeypatch.setenv("RETR_DICOMWEB_PASSWORD", "p")
    monkeypatch.setenv("RETR_DICOMWEB_USER", "a:b")
    with pytest.raises(UsageError, match="no name of a user"):
        open_source(server.url)
    monkeypatch.delenv("RETR_DICOMWEB_USER")
    monkeypatch.delenv("RETR_DICOMWEB_PASSWORD")
    for file in ("missing.pem", ""):
        monkeypatch.setenv("RETR_DICOMWEB_CA_FILE", file)
        with pytest.raises(UsageError, match="names no file"):
            open_source(server.url)
    (tmp_path / "x.pem").write_text("no certificate")
    monkeypatch.setenv("RETR_DICOMWEB_CA_FILE", str(tmp_path / "x.pem"))
    with pytest.raises(UsageError, match="names no certificates"):
        open_source(server.url)


def test_no_more_than_a_few_ask_at_a_time(server):
    now, most, lock, two = [0], [0], threading.Lock(), threading.Event()
    honest = server.files

    def slow(query):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] > 1:
                two.set()
        # the first waits for a second; others are given the time to come, were there more than may
        assert two.wait(LONG)
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return honest(query)

    server.files = slow
    source = DicomWebSource(server.url)
    (item,) = source.entries()
    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(source.read, [item.path] * 32))) == 32
    assert 2 <= most[0] <= source.parallel


def test_neither_a_proxy_nor_a_netrc_is_asked(server, monkeypatch, tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password s3cret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert len(list(DicomWebSource(server.url).entries())) == 1
    assert not [headers for _, headers in server.seen if "Authorization" in headers]


@given(st.binary(max_size=200), st.text(max_size=60), st.binary(max_size=300))
def test_any_bytes_are_one_part_or_refused(data, kind, body):
    assert single_part(part(data)[1]["Content-Type"], part(data)[2]) == data
    for content_type in (kind, f"multipart/related; boundary={kind}", 'multipart/related;boundary="x"'):
        with contextlib.suppress(RefusedAnswerError):
            assert single_part(content_type, b"--x\r\n\r\n" + body) in body


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["0020000D", "Value", "vr", "00080020"]), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_any_record_has_a_uid_or_is_refused(record):
    try:
        assert dicomweb._UID.fullmatch(dicomweb._uid(record, "0020000D"))
    except RefusedAnswerError:
        return
