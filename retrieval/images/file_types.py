"""Detect a file's format by its first bytes.

One table for the reader and for whoever lists an archive: what is looked into because its name does not tell is what
can be read. A format that is recognised but not read has a name of its own, so that its files are recorded as
"unsupported" rather than as "not an image".
"""

from __future__ import annotations

import re
import zlib

from retr.retrieval.images.dicom_open import is_dicom

# As many bytes of a file as `format_of` looks at: NIfTI's mark stands last, at byte 344.
PREFIX_BYTES = 352

UNREAD = "unread"

_MARKS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",  # BigTIFF
    b"MM\0+": "tiff",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jpeg2000",
    b"\xff\x4f\xff\x51": "jpeg2000",
    b"\xff\x0a": "jpegxl",
    b"\0\0\0\x0cJXL \r\n\x87\n": "jpegxl",
    b"\xff\xd8\xff\xf7": "jpegls",
    b"\xff\xd8\xff": "jpeg",
    # camera makers' own: Olympus, Panasonic, Fujifilm, Sigma, Minolta, Canon
    b"IIRO": UNREAD,
    b"IIRS": UNREAD,
    b"MMOR": UNREAD,
    b"IIU\0": UNREAD,
    b"FUJIFILMCCD-RAW": UNREAD,
    b"FOVb": UNREAD,
    b"\0MRM": UNREAD,
    b"II\x1a\0\0\0HEAP": UNREAD,
    # Photoshop, OpenEXR, JPEG XR, QOI, DDS, portable arbitrary maps, FITS, NRRD
    b"8BPS": UNREAD,
    b"v/1\x01": UNREAD,
    b"II\xbc\x01": UNREAD,
    b"qoif": UNREAD,
    b"DDS ": UNREAD,
    b"P7\n": UNREAD,
    b"SIMPLE  =": UNREAD,
    b"NRRD000": UNREAD,
}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
# kind, width, height; comments may stand between
_PNM = re.compile(rb"P([1-6Ff])(?:\s+|#[^\r\n]*[\r\n])+\d+(?:\s+|#[^\r\n]*[\r\n])+\d+\s")
_GZIP = b"\x1f\x8b"
_NIFTI1, _NIFTI2 = (b"\x5c\1\0\0", b"\0\0\1\x5c"), (b"\x1c\2\0\0", b"\0\0\2\x1c")  # the header's length


def format_of(prefix: bytes) -> str | None:
    r"""Return the name of the format of a file that begins with ``prefix``, `UNREAD`, or None.

    Parameters
    ----------
    prefix
        The first `PREFIX_BYTES` bytes, or all of a shorter file.

    Examples
    --------
    >>> format_of(b"\xff\xd8\xff\xe0\0\x10JFIF"), format_of(b"BMW builds cars"), format_of(b"P5 2 3 255 ")
    ('jpeg', None, 'pnm')
    """
    if is_dicom(prefix):  # before the others: its free 128 bytes may hold a TIFF header
        return "dicom"
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        return "webp"
    for mark, name in _MARKS.items():
        if prefix.startswith(mark):
            # Apple's variant of PNG, which only its own programs read
            return UNREAD if name == "png" and prefix[12:16] == b"CgBI" else name
    if prefix[:2] == b"BM" and int.from_bytes(prefix[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    netpbm = _PNM.match(prefix)
    if netpbm:
        return UNREAD if netpbm[1] == b"F" else "pnm"
    if prefix[4:8] == b"ftyp":  # the ISO media container: HEIC, AVIF, Canon's CR3, MP4
        return UNREAD
    return _nifti(prefix)


def _nifti(prefix: bytes) -> str | None:
    if prefix[:2] == _GZIP:
        try:
            prefix = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(prefix, PREFIX_BYTES)
        except zlib.error:
            return None
        # the beginning of a gzip member may hold less than the whole header: its length field has to do
        return "nifti" if prefix[:4] in {*_NIFTI1, *_NIFTI2} else None
    if prefix[344:348] == b"n+1\0" or prefix[4:8] == b"n+2\0":
        return "nifti"
    # the header of a pair, whose voxels are in another file
    return UNREAD if prefix[344:348] == b"ni1\0" or prefix[4:8] == b"ni2\0" else None
