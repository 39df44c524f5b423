"""The base class of encoders: pictures to rows of float32.

Encoding has two halves, so that the build pipeline can decode in threads while the network runs:
`BaseEncoder.prepare` turns one RGB picture into the network's input, `BaseEncoder.encode_prepared` turns a
stack of inputs into vectors. `BaseEncoder.encode_images` is the two in a row, from anything that can be read
as a picture.

An encoder is exact about its authors' preprocessing and never normalises: unit vectors are the index's
business.
"""

from __future__ import annotations

import functools
import os
import threading
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from retr.index.errors import NoTextSideError, RetrError
from retr.index.vectors import unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import PIL.Image
    from numpy.typing import NDArray

    from retr.index.encoder import EncoderInfo


#: How often the shorter side a picture's longer one may be where both are scaled alike.
LONGEST_ASPECT = 512


def limit_aspect(image: PIL.Image.Image, most: int = LONGEST_ASPECT) -> PIL.Image.Image:
    """Cut the ends off a picture more than `most` times as long as wide.

    For pipelines that scale the shorter side and then crop the centre: the ends would be cut off anyway, but a
    picture one pixel wide would first be scaled to gigabytes. What is left has the same middle; where the lengths of
    the scaled sides are rounded, it may lie half a pixel of the network's picture beside it.

    >>> import PIL.Image
    >>> limit_aspect(PIL.Image.new("RGB", (1, 10001))).size, limit_aspect(PIL.Image.new("RGB", (9, 3000))).size
    ((1, 513), (9, 3000))
    """
    width, height = image.size
    short, long = sorted(image.size)
    if long <= most * short:
        return image
    # as much from both ends
    end = (long - most * short) // 2
    return image.crop((end, 0, width - end, height) if width > height else (0, end, width, height - end))


# What runs a network or its tokenizer, of which most change while they run.
_ALONE = ("encode_prepared", "encode_texts", "text_lengths", "class_embedding", "patch_embeddings", "place_descriptors")


class _Turn:
    """Whose turn it is to run a network, and the process in which it ran last."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.process: int | None = None


def alone(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let threads that call such methods of one encoder take turns; refuse what would hang in a forked process."""

    @functools.wraps(method)
    def in_turn(self: BaseEncoder, *args: Any, **options: Any) -> Any:
        turn, here = self._turn, os.getpid()
        if turn.process not in {None, here} and not self.survives_fork():
            raise RetrError(
                f"the encoder {self.info.name!r} ran before this process was forked, and its threads are not here",
                hint='start processes with multiprocessing.get_context("spawn"), or fork before anything is embedded',
            )
        with turn.lock:
            turn.process = here
            return method(self, *args, **options)

    return in_turn


class BaseEncoder(ABC):
    """Base of all encoders.

    Threads may share an encoder. Pictures are read and prepared side by side; the methods that run the network or the
    tokenizer (`encode_prepared`, `encode_texts`, `text_lengths`, `class_embedding`, `patch_embeddings`,
    `place_descriptors`) run in one thread at a time, also in an encoder of one's own, which need not see to that.

    Attributes
    ----------
    info
        Who this is (see `EncoderInfo`); goes into the manifest.
    notes
        What the user should be told about this load, one line each: a precision that was given up, a licence
        that forbids commercial use. The command line prints them.
    batch_size
        How many pictures `encode_prepared` takes best at once; any number is accepted.
    batch_invariant
        Whether a picture's vector is the same to the last bit in every batch. Where it is not, the build pipeline
        fills up its last batch, so that an index does not depend on how often its build was interrupted.
    files
        Files that every index of it keeps, by name: what it was fitted on lies in them, and it cannot be loaded again
        without them.

    Examples
    --------
    >>> from retr.sample import sample_encoder
    >>> encoder = sample_encoder()
    >>> encoder.info.name, encoder.info.dim
    ('colours', 48)
    """

    info: EncoderInfo
    notes: list[str]
    batch_size: int = 32
    batch_invariant: bool = False
    files: Mapping[str, bytes] = MappingProxyType({})
    _turn: _Turn

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        """Make an encoder; not in ``__init__``, which encoders of others may not pass on."""
        encoder = super().__new__(cls)
        # also where the encoder is a frozen dataclass
        object.__setattr__(encoder, "_turn", _Turn())
        return encoder

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in _ALONE:
            if name in vars(cls):
                setattr(cls, name, alone(vars(cls)[name]))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_turn"}

    def survives_fork(self) -> bool:
        """Return whether what ran in a process runs in a forked child of it, too.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> encoder.survives_fork()
        True
        """
        return True

    @abstractmethod
    def prepare(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Turn one RGB picture into the network's input, shape ``(c, h, w)``. Called from several threads.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> import PIL.Image
        >>> encoder.prepare(PIL.Image.new("RGB", (8, 6))).shape
        (6, 8, 3)
        """

    def compact(self, image: PIL.Image.Image) -> NDArray[Any]:
        """Turn one RGB picture into what `encode_prepared` takes as well and gives the same vector for, in few bytes.

        By default it is `prepare`. Called from several threads.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> import PIL.Image
        >>> encoder.compact(PIL.Image.new("RGB", (8, 6))).dtype
        dtype('uint8')
        """
        return self.prepare(image)

    def stack(self, inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Stack prepared pictures of one shape: ``(n, c, h, w)``, in memory that suits the device.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> import PIL.Image
        >>> encoder.stack([encoder.prepare(PIL.Image.new("RGB", (8, 6)))]).shape
        (1, 6, 8, 3)
        """
        return np.stack(inputs)

    @abstractmethod
    def encode_prepared(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared pictures ``(n, c, h, w)``: float32 ``(n, dim)``.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> encoder.encode_prepared(np.zeros((5, 8, 8, 3), np.uint8)).shape
        (5, 48)
        """

    def encode_images(self, items: Iterable[Any]) -> NDArray[np.float32]:
        """Embed pictures.

        Parameters
        ----------
        items
            Several pictures, each as `retr.Query.image` takes one (paths, bytes, PIL images, arrays ...), mixed as you
            like; or a batch of four axes, ``(n, c, h, w)`` or ``(n, h, w, c)``.

        Returns
        -------
        NDArray[np.float32]
            Shape ``(n, dim)``, not normalised, in the order of the items.

        Raises
        ------
        ImageReadError
            If an item cannot be read as a picture.
        UsageError
            It is one picture rather than several.

        Examples
        --------
        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> encoder.encode_images([np.zeros((8, 8)), np.ones((3, 8, 8))])[:, 0].tolist()
        [1.0, 256.0]
        """
        from retr.retrieval.images import read_image
        from retr.retrieval.images.given import each_picture

        items = each_picture(items)
        vectors = np.empty((len(items), self.info.dim), dtype=np.float32)
        for start in range(0, len(items), self.batch_size):
            pictures = [
                read_image(
                    item,
                    draft_size=self.info.draft_size,
                    grey16=self.info.grey16,
                    name=os.fsdecode(item) if isinstance(item, str | os.PathLike) else None,
                ).image
                for item in items[start : start + self.batch_size]
            ]
            prepared = [self.compact(picture) for picture in pictures]
            # inputs may differ in shape (an encoder that keeps the aspect): equal ones are stacked
            for shape in {array.shape for array in prepared}:
                rows = [row for row, array in enumerate(prepared) if array.shape == shape]
                vectors[[start + row for row in rows]] = self.encode_prepared(np.stack([prepared[row] for row in rows]))
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:  # noqa: ARG002
        """Embed texts: float32 ``(n, dim)``, not normalised.

        Raises
        ------
        NoTextSideError
            Where the encoder has no text side.

        Examples
        --------
        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> encoder.encode_texts(["drusen"])
        Traceback (most recent call last):
        ...
        retr.index.errors.NoTextSideError: ...
        """
        raise NoTextSideError(
            f"encoder {self.info.name!r} embeds images only",
            hint="query with an image, or use an encoder that `retr encoders ls` shows with text",
        )

    def text_lengths(self, texts: Sequence[str]) -> list[tuple[int, int]]:  # noqa: ARG002
        """Count the tokens of texts, and how many of them are read; empty where any text is read to its end.

        What the encoder adds (a caption, marks of beginning and end) counts, as it takes room.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> encoder.text_lengths(["drusen"])
        []
        """
        return []

    def class_embedding(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Embed a class described by several prompts: float32 ``(dim,)``.

        The mean of the prompts' unit vectors, made a unit vector again (open_clip's zero-shot classifier); where the
        similarity is the dot product, the plain mean. Encoders whose authors do otherwise override it.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> encoder.encode_texts = lambda texts: np.float32([[len(text), 0] for text in texts])
        >>> encoder.class_embedding(["a", "photo of a"]).tolist()
        [1.0, 0.0]
        """
        vectors = self.encode_texts(prompts)
        if self.info.similarity == "dot":
            return cast("NDArray[np.float32]", vectors.mean(axis=0))
        return unit(unit(vectors).mean(axis=0))

    def similarity_logits(
        self, image_vectors: NDArray[np.float32], text_vectors: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return what the authors' softmax over prompts takes: float32 ``(n, m)``.

        Parameters
        ----------
        image_vectors
            Shape ``(n, dim)``, from `encode_images`.
        text_vectors
            Shape ``(m, dim)``, from `encode_texts` or `class_embedding`.

        Returns
        -------
        NDArray[np.float32]
            The similarity times the stored logit scale, where there is one.

        Examples
        --------
        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> encoder.similarity_logits(np.float32([[0, 4]]), np.float32([[1, 0], [0, 1]])).tolist()
        [[0.0, 1.0]]
        """
        if self.info.similarity == "cosine":
            image_vectors, text_vectors = unit(image_vectors), unit(text_vectors)
        scale = self.info.logit_scale if self.info.logit_scale is not None else 1.0
        return cast("NDArray[np.float32]", image_vectors @ text_vectors.T * np.float32(scale))

    def patch_embeddings(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:  # noqa: ARG002
        """Embed the patches of one RGB picture: float32 ``(h, w, dim)``, or None.

        Comparable with `encode_images`; row-major from the top left of the network's input. None where the
        network keeps no map of patches.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> import PIL.Image
        >>> encoder.patch_embeddings(PIL.Image.new("RGB", (8, 6))) is None
        True
        """
        return None

    def size(self) -> tuple[int | None, int | None]:
        """Return how many parameters the image side has, and how many bytes they take as loaded; None: not known.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> encoder.size()
        (None, None)
        """
        return None, None

    def place_descriptors(self, image: PIL.Image.Image) -> NDArray[np.float32] | None:
        """Describe the places of one RGB picture, to be compared with places of others: float32 ``(h, w, d)``, or None.

        Row-major from the top left of the picture. They need not be comparable with `encode_images`: an encoder may
        keep finer maps than the one that its vector is made from. By default they are `patch_embeddings`.

        >>> from retr.sample import sample_encoder
        >>> encoder = sample_encoder()
        >>> import PIL.Image
        >>> encoder.place_descriptors(PIL.Image.new("RGB", (8, 6))) is None
        True
        """
        return self.patch_embeddings(image)

    def __repr__(self) -> str:
        info = self.info
        return f"<{type(self).__name__} {info.name} dim={info.dim} {info.precision} on {info.device}>"
