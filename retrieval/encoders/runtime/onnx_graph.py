"""A torch encoder's image side on ONNX Runtime: ``runtime="onnx"``, on a CPU.

The graph of one picture is traced from the loaded network, without its weights: these stay where torch has them, as
they were checked. What is kept in the cache is some hundred kilobytes, under a name that says of which encoder, which
weights and which versions of the libraries it was traced, and counts only if this user or root owns it (`kept`).

Whether traced or kept, a graph is compared with torch at every load, on pictures of three shapes. Its vectors may be
as far from torch's as torch's from the authors' on another processor; so the runtime is no part of an encoder's
identity, as its precision and device are none. Pictures run one at a time: a graph of fixed shapes holds nothing that
depends on how many there are, and a vector does not either.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retr.index.errors import RetrError, UsageError
from retr.index.machine.extras import needed
from retr.index.machine.home import cache_folder
from retr.index.machine.kept import keep, read_kept
from retr.retrieval.encoders.runtime.torch_encoder import TorchEncoder
from retr.retrieval.encoders.sample_picture import picture
from retr.retrieval.ignored_warnings import ignoring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from retr.retrieval.encoders.base import BaseEncoder

_OPSET = 17
# Of unit vectors: what the comparisons with the authors' code allow.
LARGEST_DIFFERENCE = 5e-5
LEAST_COSINE = 0.9999
# What decides the graph beside the weights: whose code is traced, and who traces it.
_LIBRARIES = ("retr", "torch", "onnx", "onnxruntime", "timm", "transformers", "open_clip_torch")


class Graph:
    """A network at one size of pictures on ONNX Runtime, its weights those of the torch network.

    Parameters
    ----------
    model
        What `traced` gave.
    network
        The torch modules whose weights it takes. `ValueError` where they lack one.
    """

    def __init__(self, model: bytes, network: torch.nn.Module) -> None:
        import onnxruntime

        line, _, graph = model.partition(b"\n")
        tensors = _tensors(network)
        try:
            names = json.loads(line)
            # held, since the session reads the memory that torch has
            self._weights = [np.ascontiguousarray(tensors[name].numpy()) for name in names]
        except (KeyError, TypeError) as error:
            raise ValueError(f"a graph of another network: {error}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # threads that wait for the next layer would take time from whatever else runs here
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._values = [onnxruntime.OrtValue.ortvalue_from_numpy(one) for one in self._weights]
        options.add_external_initializers(names, self._values)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.shape = tuple(self._session.get_inputs()[0].shape[1:])

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pixels ``(n, ...)`` of the graph's shape, one after the other: ``(n, dim)``."""
        given = np.ascontiguousarray(pixels.numpy())
        rows = [self._session.run(None, {"pixels": given[row : row + 1]})[0] for row in range(len(given))]
        return torch.from_numpy(np.concatenate(rows))


def run_on_onnx(encoder: BaseEncoder) -> None:
    """Let a loaded encoder embed pictures on ONNX Runtime, and note how far its vectors are from torch's.

    Raises
    ------
    UsageError
        It is no torch network in float32 on a CPU, it prepares pictures of several shapes, its network cannot be
        traced, or the graph's vectors are not torch's.
    MissingExtraError
        There is no graph in the cache and ``onnx``, which writes one, is not installed.
    """
    name = encoder.info.name
    if not isinstance(encoder, TorchEncoder):
        raise refused(name, "it is no torch network")
    if encoder.device.type != "cpu" or encoder.dtype is not torch.float32:
        raise refused(name, f"it runs in {encoder.info.precision} on {encoder.device}, and a graph in fp32 on a CPU")
    pictures = [encoder.prepare(one) for one in _pictures()]
    if len({one.shape for one in pictures}) > 1:
        raise refused(name, "it keeps the aspect of pictures, and a graph is of one shape")
    pixels = encoder.pixels(np.stack(pictures))
    # the exporter puts back the mode that it found, in every part: a module that is new is in training
    network = _ImageSide(encoder).eval()
    with torch.inference_mode():
        # one at a time, as the graph: what a batch changes is not the graph's
        expected = torch.cat([encoder.forward(one[None]) for one in pixels]).numpy()
    file = cache_folder() / "graphs" / f"{_key(encoder, pixels[0])}.onnx"
    graph: Graph | None = None
    with suppress(OSError, ValueError, RuntimeError):
        graph = Graph(read_kept(file), network)
    if graph is None:
        model = _traced(network, pixels[:1], name)
        graph = Graph(model, network)
        keep(file, model)
    cosine, difference = _compare(graph(pixels).numpy(), expected)
    if not (cosine >= LEAST_COSINE and difference <= LARGEST_DIFFERENCE):
        raise refused(
            name, f"on the built-in picture its vectors are off from torch's by {difference:.1e} (cosine {cosine:.6f})"
        )
    encoder.graph = graph
    encoder.batch_invariant = True
    encoder.info = replace(encoder.info, device="cpu, ONNX Runtime")
    encoder.notes.append(
        f"runs on ONNX Runtime: unit vectors of the built-in picture are within {difference:.1e} of torch's "
        f"(cosine {cosine:.7f})"
    )


def refused(name: str, why: str) -> UsageError:
    """Return what to raise where an encoder does not run on ONNX Runtime."""
    return UsageError(f"{name!r} does not run on ONNX Runtime: {why}", hint="leave out runtime=onnx")


class _ImageSide(torch.nn.Module):
    """The image side of an encoder as one module, as the exporter wants it."""

    def __init__(self, encoder: TorchEncoder) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(encoder.image_side())
        # out of torch's sight: it is no module
        self.embed = encoder.forward

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.embed(pixels)


def _pictures() -> list[Any]:
    """Return the built-in picture, and parts of it that are wide and tall."""
    whole = picture()
    return [whole, whole.crop((0, 64, 512, 384)), whole.crop((100, 0, 400, 512))]


def _tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by every name they have."""
    parameters = network.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(network.named_buffers(remove_duplicate=False))}


def _traced(network: torch.nn.Module, pixels: torch.Tensor, name: str) -> bytes:
    """Return the names of the weights, in a line of JSON, and the graph that takes them from outside."""
    with needed():
        import onnx
    try:
        # What wants a gradient is kept from torch's fused attention, which no graph has.
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            ignoring(),
            _silent(),
            tempfile.TemporaryDirectory() as folder,
        ):
            target = Path(folder) / "graph.onnx"
            # The newer exporter needs onnxscript too. Whoever opens the graph folds what follows from the weights.
            torch.onnx.export(
                network,
                (pixels.clone().requires_grad_(),),
                target,
                dynamo=False,
                input_names=["pixels"],
                output_names=["vectors"],
                opset_version=_OPSET,
                export_params=False,
                do_constant_folding=False,
            )
            model: Any = onnx.load(target)
    except (RuntimeError, ValueError, TypeError, AttributeError, RetrError) as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise refused(name, f"its network cannot be exported: {said}") from error
    graph, tensors = model.graph, _tensors(network)
    given = [one for one in graph.input if one.name in tensors]
    for one in given:
        tensor = graph.initializer.add(name=one.name, dims=tensors[one.name].shape)
        tensor.data_type = one.type.tensor_type.elem_type
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights")
        graph.input.remove(one)
    names = json.dumps([one.name for one in given]).encode()
    written: bytes = model.SerializeToString(deterministic=True)
    return names + b"\n" + written


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter from writing the whole network to standard output where it fails."""
    # what it does is to ask whether that is wanted, by a test that is always true
    library: Any = torch._C
    log = library._jit_onnx_log
    library._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        library._jit_onnx_log = log


def _key(encoder: TorchEncoder, pixels: torch.Tensor) -> str:
    """Name what decides the graph: the encoder, its weights, the size of pictures, whose code runs."""
    versions = {}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[library] = version(library)
    kind = f"{type(encoder).__module__}.{type(encoder).__qualname__}"
    said = [kind, encoder.info.identity, encoder.info.config_sha256, list(pixels.shape), versions, _OPSET]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _compare(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Return the smallest cosine of rows of the same picture, and the largest difference of unit vectors."""
    found, expected = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (found.astype("f8"), expected))
    return float((found * expected).sum(axis=1).min()), float(np.abs(found - expected).max())
