"""Encoders made from a function or a torch module of the caller's own."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from retr.index.encoder import EncoderInfo
from retr.index.errors import EncoderNotFoundError, UsageError
from retr.index.json_fields import is_unicode
from retr.index.machine.extras import needed
from retr.index.machine.imported import imported
from retr.index.vectors import plain_array
from retr.retrieval.encoders.base import BaseEncoder
from retr.retrieval.encoders.registry import find_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retr.index.encoder import Similarity

_SHA256 = re.compile("[0-9a-f]{64}")
_LONGEST_NAME = 200


class CallableEncoder(BaseEncoder):
    """What `from_callable` makes."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        prepare: Callable[[PIL.Image.Image], Any] | None,
        info: EncoderInfo,
        batch_size: int,
        *,
        module: Any = None,
    ) -> None:
        self._function, self._prepare, self._module = function, prepare, module
        self.info = info
        self.notes = []
        self.batch_size = batch_size

    def prepare(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Turn one RGB picture into what the function takes a stack of; without ``prepare`` its pixels."""
        return np.asarray(image) if self._prepare is None else plain_array(self._prepare(image))

    def survives_fork(self) -> bool:
        """Return whether it is no torch module, or torch runs without threads of its own."""
        torch = imported("torch") if self._module is not None else None
        return torch is None or torch.get_num_threads() == 1

    def size(self) -> tuple[int | None, int | None]:
        """Return the size of a module; of a function nothing is known."""
        if self._module is None:
            return None, None
        parameters = list(self._module.parameters())
        return sum(one.numel() for one in parameters), sum(one.numel() * one.element_size() for one in parameters)

    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Call the function on prepared pictures: float32 ``(n, dim)``.

        Raises
        ------
        UsageError
            It returns another shape, or what is no number.
        """
        given = [PIL.Image.fromarray(picture) for picture in batch] if self._prepare is None else batch
        vectors = plain_array(self._function(given))
        if vectors.shape != (len(batch), self.info.dim) or vectors.dtype.kind not in "fiu":
            raise UsageError(
                f"the encoder {self.info.name!r} was given {len(batch)} pictures and must return numbers of the shape "
                f"({len(batch)}, {self.info.dim}), got {vectors.dtype} {vectors.shape}"
            )
        return vectors.astype(np.float32)


def from_callable(
    function: Callable[[Any], Any],
    *,
    dim: int,
    name: str,
    fingerprint: str | None = None,
    prepare: Callable[[PIL.Image.Image], Any] | None = None,
    similarity: Similarity = "cosine",
    batch_size: int = 32,
) -> BaseEncoder:
    """Make an encoder of a function or a ``torch.nn.Module``.

    An index built with it is opened with it: ``Index.open(path, encoder=...)``. Without it, the index answers by id and
    by vector.

    Parameters
    ----------
    function
        Takes a stack of prepared pictures, a numpy array, and returns ``(n, dim)`` numbers, an array or a tensor;
        without ``prepare`` it takes a list of PIL images. A module is given a tensor where its parameters are, in
        evaluation mode and without gradients.
    dim
        Length of a vector.
    name
        What the index records; not a name of `retr encoders ls`.
    fingerprint
        What tells this encoder from another of the same name, ``prepare`` included: a version, or a sha256. Of a module
        it is computed from its parameters where it is not given, and then does not cover ``prepare``.
    prepare
        Turns one RGB picture into an array or a tensor, as a torchvision transform does; called from several threads.
    similarity
        ``"cosine"`` or ``"dot"``.
    batch_size
        How many pictures are given at once, at most.

    Raises
    ------
    UsageError
        It cannot be called, the name is taken, there is no fingerprint, or a module comes without ``prepare``.

    Examples
    --------
    >>> import numpy as np
    >>> def colours(pictures):
    ...     return np.stack([np.asarray(picture).mean((0, 1)) for picture in pictures])
    >>> encoder = from_callable(colours, dim=3, name="colours", fingerprint="1")
    >>> encoder.encode_images([np.full((8, 8, 3), 7, np.uint8)]).tolist()
    [[7.0, 7.0, 7.0]]
    """
    if not callable(function):
        raise UsageError(f"an encoder is made of a function or a torch module, got {type(function).__name__}")
    if batch_size < 1:
        raise UsageError(f"a batch has at least one picture, got: {batch_size!r}")
    module = function if _is_module(function) else None
    if module is not None:
        if prepare is None:
            raise UsageError("a torch module needs prepare=", hint="give the transform it was trained with")
        fingerprint = fingerprint or _fingerprint_of(function)
        function = _evaluated(function)
    info = outside_info(name, fingerprint, dim=dim, similarity=similarity)
    return CallableEncoder(function, prepare, info, batch_size, module=module)


def outside_info(name: str, fingerprint: str | None, *, dim: int, similarity: Similarity) -> EncoderInfo:
    """Return the identity of a model that retr does not know: what its owner calls it.

    Raises
    ------
    UsageError
        The name is that of a registered encoder or cannot be printed, or there is no fingerprint.
    """
    if not (name.strip() == name and name.isprintable() and 0 < len(name) <= _LONGEST_NAME):
        raise UsageError(f"an encoder needs a name that can be printed, got: {name!r}")
    if is_registered(name):
        raise UsageError(f"{name!r} is an encoder of `retr encoders ls`", hint="give your own another name")
    if fingerprint is None or not str(fingerprint).strip():
        raise UsageError(
            f"the encoder {name!r} needs a fingerprint, got: {fingerprint!r}",
            hint="give what tells its weights from others: a version, or the sha256 of the checkpoint",
        )
    if similarity not in {"cosine", "dot"}:
        raise UsageError(f"the similarity is 'cosine' or 'dot', got: {similarity!r}")
    if dim < 1:
        raise UsageError(f"an embedding needs at least one dimension, got {dim!r}")
    fingerprint = str(fingerprint)
    if not is_unicode(fingerprint):
        raise UsageError(f"the fingerprint of {name!r} is not Unicode: {fingerprint!r}", hint="give it as UTF-8")
    digest = fingerprint if _SHA256.fullmatch(fingerprint) else hashlib.sha256(fingerprint.encode()).hexdigest()
    return EncoderInfo(
        name=name,
        dim=int(dim),
        similarity=similarity,
        modality="unknown",
        text=False,
        weights_sha256=digest,
        preprocessing="the owner's",
    )


def is_registered(name: str) -> bool:
    """Return whether `load_encoder` knows a name."""
    try:
        find_spec(name)
    except EncoderNotFoundError:
        return False
    return True


def _is_module(function: object) -> bool:
    torch = imported("torch")
    return torch is not None and isinstance(function, torch.nn.Module)


def _fingerprint_of(module: Any) -> str:
    """Hash the parameters and buffers of a module, with their names."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        array = np.ascontiguousarray(plain_array(tensor))
        digest.update(f"{key} {tensor.dtype} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _evaluated(module: Any) -> Callable[[NDArray[Any]], Any]:
    with needed():
        import torch

    def run(batch: NDArray[Any]) -> Any:
        first = next(module.parameters(), torch.zeros(()))
        module.eval()
        with torch.inference_mode():
            return module(torch.from_numpy(np.ascontiguousarray(batch)).to(first.device, first.dtype))

    return run
