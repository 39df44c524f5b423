"""RAD-DINO through transformers' ``Dinov2Model``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from retr.index.errors import WeightsError
from retr.retrieval.encoders.runtime.preprocess import ShortSideCrop
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.weights.checkpoints import digest
from retr.retrieval.encoders.weights.pretrained import load_pretrained
from retr.retrieval.encoders.weights.untrusted import PROCESSORS, check_folder, config_digest, read_json, read_processor

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.spec import Card


class RadDinoEncoder(TorchEncoder):
    """RAD-DINO.

    Parameters
    ----------
    info, network, device, precision
        As in `TorchEncoder`; `info.options` holds the feature.
    preprocessing
        As the folder asks for it.
    """

    batch_size = 8

    def __init__(
        self, info: EncoderInfo, network: nn.Module, preprocessing: ShortSideCrop, *, device: str, precision: str
    ) -> None:
        self.preprocessing, self.table = preprocessing, preprocessing.table()
        self.feature = info.options["feature"]
        super().__init__(info, network, device=device, precision=precision)

    def to_bytes(self, image: PIL.Image.Image) -> NDArray[np.uint8]:
        """Resize and crop as the folder asks for: uint8 ``(3, 518, 518)``."""
        return self.preprocessing.to_bytes(image)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels ``(n, 3, 518, 518)``: ``(n, 768)``."""
        tokens = self._tokens(pixels)
        return tokens[:, 0] if self.feature == "cls" else tokens[:, 1:].float().mean(dim=1)

    def patch_features(self, pixels: Tensor) -> Tensor:
        """Return the patch tokens after the final LayerNorm: ``(37, 37, 768)``."""
        patches = self._tokens(pixels)[0, 1:]
        width = pixels.shape[-1] // cast("Any", self.network).config.patch_size
        return patches.reshape(-1, width, patches.shape[-1])

    def _tokens(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", self.network(pixel_values=pixels).last_hidden_state)


def load_rad_dino(folder: Path, *, card: Card, feature: str, device: str, precision: str) -> RadDinoEncoder:
    """Read the hub folder and build the encoder."""
    check_folder(folder)
    asked = read_processor(folder)
    if asked is None:
        raise WeightsError(
            f"no {PROCESSORS[1]} in {folder.name!r}",
            hint="without it the preprocessing would be a guess; get the whole folder as its authors publish it",
        )
    preprocessing = ShortSideCrop.from_config(asked, PROCESSORS[1])
    network = load_pretrained("Dinov2Model", folder)
    info = card.info(
        dim=cast("Any", network).config.hidden_size,
        similarity="cosine",
        text=False,
        weights_sha256=digest(folder / "model.safetensors"),
        config_sha256=config_digest(read_json(folder / "config.json"), asked),
        preprocessing=str(preprocessing),
        options={"feature": feature},
    )
    return RadDinoEncoder(info, network, preprocessing, device=device, precision=precision)
