"""An archive in a PACS, against a real Orthanc on the loopback."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pydicom
import pytest
import requests
from dicom_file import dicom
from fake_encoder import FakeEncoder
from orthanc_server import LOGIN, orthanc
from patience import LONG

from retr import Index
from retr.index.errors import RetrError, UsageError
from retr.index.store import Store
from retr.retrieval.archive import dicomweb, locations, remote
from retr.retrieval.archive.dicomweb import DicomWebSource
from retr.retrieval.archive.kept_identifiers import KeptIdentifiers
from retr.retrieval.ingest.build import build

TESTS = Path(__file__).parents[2]
# what no file of an index may hold
PLANTED = ("QXV7-OKONKWO", "1.2.840.99.")


def instance(number: int, patient: str, *, day: str = "20240115", **attributes) -> bytes:
    """A file with UIDs that are easily found again."""
    data = pydicom.dcmread(io.BytesIO(dicom(patient, number, frames=attributes.pop("frames", 1))))
    data.StudyInstanceUID = f"1.2.840.99.1.{sum(map(ord, patient))}"
    data.SeriesInstanceUID = f"{data.StudyInstanceUID}.7"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.840.99.2.{number + 1}"
    data.StudyDate, data.Modality, data.PatientAge, data.PatientSex = day, "CR", f"{40 + number:03d}Y", "F"
    data.PatientName = "Okonkwo^Ada"
    for name, value in attributes.items():
        setattr(data, name, value)
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def report_file() -> bytes:
    """A structured report: an object without pixels."""
    data = pydicom.dcmread(io.BytesIO(instance(90, "P9")))
    del data.PixelData, data.Rows, data.Columns
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    data.Modality = "SR"
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


FILES = [
    *(instance(number, PLANTED[0] if number < 2 else f"P{number // 2}") for number in range(9)),
    instance(9, "P6", frames=3, day="20240220"),
    report_file(),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def pacs(server, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    server.empty()
    server.names = server.store(*FILES)
    return server


@pytest.fixture
def asked(monkeypatch):
    """The addresses that were asked for, those of instances apart."""
    seen = {"listed": [], "fetched": []}
    get = dicomweb.Exchange.get

    def noted(self, url, headers=None, **options):
        seen["fetched" if "multipart" in (headers or {}).get("Accept", "") else "listed"].append(url)
        return get(self, url, headers, **options)

    monkeypatch.setattr(dicomweb.Exchange, "get", noted)
    return seen


def contents(path, *, without=("mtime", "etag")):
    store = Store.open(path)
    vectors = store.vectors(store.live_rows())
    rows = [{key: row[key] for key in row if key not in without} for row in store.table().to_pylist()]
    return {row["id"]: (row, vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)}


def ids_of(index):
    return index.store.table(["id"])["id"].to_pylist()


def paths_of(index):
    return index.store.table(["path"])["path"].to_pylist()


def everything(folder: Path) -> bytes:
    return b"\n".join(str(file).encode() + file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_a_pacs_gives_the_rows_and_vectors_of_the_same_files_in_a_folder(pacs, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    report = build(pacs.url, tmp_path / "index", FakeEncoder())
    assert (report.rows, report.skipped) == (12, {"no pixels": 1})
    store = Store.open(tmp_path / "index")
    ids = {row["sha256"]: row["path"] for row in store.table(["sha256", "path"]).to_pylist()}
    assert len(ids) == 10
    for data in FILES:
        name = ids.get(hashlib.sha256(data).hexdigest(), store.skipped()["path"][0].as_py())
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    local = build(tmp_path / "folder", tmp_path / "local", FakeEncoder())
    assert local.skipped == report.skipped
    assert contents(tmp_path / "index") == contents(tmp_path / "local")
    row = store.table().to_pylist()[0]
    assert {"patient", "study", "series", "modality", "patient_age", "study_year"} <= {k for k, v in row.items() if v}
    assert store.skipped().select(["path", "reason"]) == Store.open(tmp_path / "local").skipped().select(
        ["path", "reason"]
    )
    # neither the index nor a log says whose it is, or where it lies
    held = everything(tmp_path / "index")
    assert not [text for text in (*PLANTED, "127.0.0.1", "Okonkwo", "20240115") if text.encode() in held]
    assert not [text for text in PLANTED if text in caplog.text]


def test_only_what_is_new_or_changed_is_fetched(pacs, tmp_path, asked):
    path = tmp_path / "index"
    build(pacs.url, path, FakeEncoder())
    assert len(asked["fetched"]) == 10
    again = build(pacs.url, path, FakeEncoder())
    assert (again.unchanged, again.embedded, len(asked["fetched"])) == (12, 0, 10)
    pacs.store(instance(20, "P2"), instance(21, "P21"))
    more = build(pacs.url, path, FakeEncoder())
    assert (more.unchanged, more.embedded, len(asked["fetched"])) == (12, 2, 12)
    # a patient's number is corrected in the PACS, in the study and its files
    for number in (6, 7):
        data = pydicom.dcmread(io.BytesIO(FILES[number]))
        data.PatientID = "P3-corrected"
        file = io.BytesIO()
        data.save_as(file)
        pacs.remove(pacs.names[number])
        pacs.store(file.getvalue())
    mended = build(pacs.url, path, FakeEncoder())
    assert (mended.changed, mended.embedded, len(asked["fetched"])) == (2, 2, 14)
    pacs.remove(pacs.names[0])
    assert build(pacs.url, path, FakeEncoder()).vanished == 1
    pruned = build(pacs.url, path, FakeEncoder(), prune=True)
    assert (pruned.removed, pruned.rows, len(asked["fetched"])) == (1, 13, 14)
    # read again where that is asked, and found to be the same
    assert build(pacs.url, path, FakeEncoder(), rehash=True).rehashed == 11


def test_studies_of_some_days(pacs, tmp_path):
    path = tmp_path / "index"
    first = build(f"{pacs.url}?StudyDate=20240201-", path, FakeEncoder())
    assert (first.rows, first.vanished) == (3, 0)
    assert build(pacs.url, path, FakeEncoder()).rows == 12
    again = build(f"{pacs.url}/?StudyDate=-20240131&ModalitiesInStudy=CR", path, FakeEncoder())
    assert (again.unchanged, again.vanished, again.rows) == (9, 0, 12)
    with pytest.raises(UsageError, match="pruning would drop all others"):
        build(f"{pacs.url}?StudyDate=20240115", path, FakeEncoder(), prune=True)
    with pytest.raises(UsageError, match="holds no picture"):
        build(f"{pacs.url}?StudyDate=20300101", path, FakeEncoder())


def test_pages_of_studies_and_instances(pacs, tmp_path, monkeypatch, asked):
    monkeypatch.setattr(dicomweb, "STUDIES_A_PAGE", 2)
    monkeypatch.setattr(dicomweb, "INSTANCES_A_PAGE", 1)
    monkeypatch.setattr(dicomweb, "REMEMBERED", 2)
    assert build(pacs.url, tmp_path / "index", FakeEncoder()).rows == 12
    listed = [entry.path for entry in DicomWebSource(pacs.url).entries()]
    assert listed == [entry.path for entry in DicomWebSource(pacs.url).entries()]
    assert len(set(listed)) == 11
    assert sum("/instances?" in url for url in asked["listed"]) >= 3 * 11


def test_a_build_that_is_killed_goes_on(pacs, tmp_path):
    script = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from fake_encoder import FakeEncoder
from retr.retrieval.ingest import pipeline
from retr.retrieval.ingest.build import build
commit = pipeline.Run._commit
def killed(self, *, last=False):
    commit(self, last=last)
    if len(self.writer.store) >= 4:
        os.kill(os.getpid(), signal.SIGKILL)
pipeline.Run._commit = killed
build(sys.argv[2], sys.argv[3], FakeEncoder(), commit_rows=2)
"""
    path = tmp_path / "index"
    done = subprocess.run([sys.executable, "-c", script, str(TESTS), pacs.url, str(path)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = len(Store.open(path))
    assert 4 <= kept < 12
    report = build(pacs.url, path, FakeEncoder())
    assert (report.unchanged, report.embedded) == (kept, 12 - kept)
    build(pacs.url, tmp_path / "whole", FakeEncoder())
    assert contents(path) == contents(tmp_path / "whole")


def test_a_row_leads_back_to_its_picture(pacs, tmp_path, asked, monkeypatch):
    index = Index.build(pacs.url, tmp_path / "index", encoder=FakeEncoder())
    id_ = ids_of(index)[3]
    assert locations.open_item(index.store, id_) in FILES
    assert index.picture(id_).image.size == (16, 16)
    archive = locations.Archive(index.store)
    before = len(asked["listed"])
    assert all(archive.read(id_.partition("#")[0]) in FILES for id_ in ids_of(index))
    # all studies are listed once, and each of theirs
    assert len(asked["listed"]) - before <= 2 + 6
    with pytest.raises(RetrError, match="missing"):
        archive.read("0123456789abcdef/0123.dcm")
    other = tmp_path / "other.key"
    other.write_text("f" * 64)
    monkeypatch.setenv("RETR_KEY_FILE", str(other))
    with pytest.raises(UsageError, match="hashed with the key"):
        build(pacs.url, index.path, FakeEncoder())


def test_labels_are_joined_by_uid(pacs, tmp_path):
    lines = ["path,finding"]
    for number, data in enumerate(FILES[:4]):
        header = pydicom.dcmread(io.BytesIO(data))
        parts = [header.StudyInstanceUID, header.SOPInstanceUID]
        lines.append(f"{'/'.join(parts)},{'nodule' if number % 2 else 'none'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    report = build(pacs.url, tmp_path / "index", FakeEncoder(), metadata=tmp_path / "labels.csv")
    assert (report.without_metadata, report.unmatched_metadata) == (6, 0)
    found = Store.open(tmp_path / "index").table(["finding"])["finding"].to_pylist()
    assert (found.count("nodule"), found.count("none")) == (2, 2)


def test_a_hit_leads_back_to_its_study_and_a_purge_forgets_it(pacs, tmp_path):
    path, state = tmp_path / "index", Path(os.environ["RETR_STATE_DIR"])
    template = f"{pacs.http}/dicom-web/studies/{{study}}/series/{{series}}/instances?SOPInstanceUID={{instance}}"
    index = Index.build(pacs.url, path, encoder=FakeEncoder())
    assert index.links(ids_of(index)[:1], template) == [None]
    assert not (state / "identifiers").exists()
    # later, and without fetching anything again
    report = build(pacs.url, path, FakeEncoder(), keep_identifiers=True)
    assert (report.unchanged, report.embedded) == (12, 0)
    index.refresh()
    hits = index.search(id=ids_of(index)[0], k=3)
    for id_, link in zip(hits.ids, index.links(hits.ids, template), strict=True):
        (found,) = requests.get(link, timeout=LONG).json()
        uid = found["00080018"]["Value"][0]
        stored = next(data for data in FILES if pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID == uid)
        assert stored == locations.open_item(index.store, id_)
    kept = KeptIdentifiers(index.store.uuid)
    assert (kept.path.stat().st_mode & 0o777, kept.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert PLANTED[0].encode() in everything(state)
    assert not [text for text in PLANTED if text.encode() in everything(path)]
    index.delete(where=f"patient = '{PLANTED[0]}'", purge=True)
    assert PLANTED[0].encode() not in everything(state)
    assert len(kept.of(paths_of(index))) == 8
    # what is added is kept as before, until all of it is to be forgotten
    pacs.store(instance(30, "P30"))
    build(pacs.url, path, FakeEncoder())
    assert "P30" in {one["patient"] for one in kept.of(paths_of(Index.open(path))).values()}
    build(pacs.url, path, FakeEncoder(), keep_identifiers=False)
    assert not kept.kept


def test_tls_and_a_login(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    pem, authority = certificate(tmp_path)
    with orthanc(tmp_path / "orthanc", login=True) as server, tls_before(server.port, pem) as port:
        server.store(*FILES[:2])
        url = f"dicomwebs://127.0.0.1:{port}/dicom-web"

        def refused():
            with pytest.raises(UsageError) as caught:
                build(url, tmp_path / "index", FakeEncoder())
            assert not [part for part in (*LOGIN, "p4ss", "wrong") if part in str(caught.value)]
            return str(caught.value)

        assert "certificate is not trusted" in refused()
        monkeypatch.setenv("RETR_DICOMWEB_CA_FILE", str(authority))
        assert "asks for a login" in refused()
        monkeypatch.setenv("RETR_DICOMWEB_USER", LOGIN[0])
        assert "RETR_DICOMWEB_PASSWORD" in refused()
        monkeypatch.setenv("RETR_DICOMWEB_PASSWORD", "wrong")
        assert "asks for a login" in refused()
        monkeypatch.setenv("RETR_DICOMWEB_PASSWORD", LOGIN[1])
        assert build(url, tmp_path / "index", FakeEncoder()).rows == 2
        held = everything(tmp_path / "index") + everything(Path(os.environ["RETR_STATE_DIR"]))
        assert not [part for part in LOGIN[1:] if part.encode() in held]


@contextlib.contextmanager
def tls_before(port: int, pem: Path):
    """TLS in front of a server, as hospitals have it; Debian's Orthanc itself dies of a TLS connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def forward(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as inside:
                with context.wrap_socket(self.request, server_side=True) as outside:
                    back = threading.Thread(target=forward, args=(inside, outside), daemon=True)
                    back.start()
                    forward(outside, inside)
                    back.join(LONG)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key with its certificate in one file, and the certificate alone, of who signed it."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(secret + text)
    (folder / "authority.pem").write_bytes(text)
    return folder / "server.pem", folder / "authority.pem"
