"""Load encoders by name, through the entry-point group ``retr.encoders``.

Each entry point is a `Spec`: a `Card` that tells about the encoder without loading anything, and a ``load``
function whose keyword-only parameters are the options `load_encoder` accepts. A family takes what follows a
colon: ``open_clip:ViT-B-32/openai`` loads the spec ``open_clip`` with ``ViT-B-32/openai``.
"""

from __future__ import annotations

import inspect
import os
import threading
from typing import TYPE_CHECKING, Any

from retr.index.errors import EncoderNotFoundError, UsageError, WeightsError
from retr.index.machine.extras import needed
from retr.index.machine.home import home
from retr.index.machine.waiting import waiting
from retr.retrieval.encoders.options import check_choice
from retr.retrieval.encoders.weights import locations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from retr.index.encoder import EncoderInfo
    from retr.retrieval.encoders.base import BaseEncoder
    from retr.retrieval.encoders.spec import Spec

GROUP = "retr.encoders"
# what every encoder takes
_EVERYWHERE = ("device", "precision", "runtime")
# Of a name, which may be a path: what is longer is a text.
_LONGEST_NAME, _SHOWN = 4096, 100
# One at a time: the libraries that load models change settings of the process while they do.
_LOADING = threading.RLock()


def specs() -> tuple[dict[str, Spec], list[str]]:
    """Return all registered encoders by name, and a line for each whose package does not import.

    No network is loaded.
    """
    from importlib.metadata import entry_points

    found, broken = {}, []
    for name in sorted(entry_points(group=GROUP).names):
        try:
            found[name] = get_spec(name)
        except EncoderNotFoundError as error:
            broken.append(str(error))
    return found, broken


def get_spec(name: str) -> Spec:
    """Find one spec by its entry point's name.

    Raises
    ------
    EncoderNotFoundError
        If no such name is registered; the message holds the nearest ones.
    """
    from importlib.metadata import entry_points

    found = entry_points(group=GROUP, name=name)
    if found:
        point = next(iter(found))
        try:
            return point.load()  # type: ignore[no-any-return]
        except (ImportError, AttributeError) as error:
            raise EncoderNotFoundError(
                f"encoder {name!r} is registered as {point.value!r}, which does not import: {error}",
                hint="install its package again, or remove it",
            ) from error
    names = sorted(entry_points(group=GROUP).names)
    import difflib

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(names)}"
    raise EncoderNotFoundError(f"no encoder named {name!r}", hint=hint)


def find_spec(name: str) -> tuple[Spec, str]:
    """Split ``"open_clip:ViT-B-32/openai"`` into its spec and what follows the colon; see `get_spec`."""
    if not isinstance(name, str):
        raise UsageError(f"an encoder is named by a text, got {type(name).__name__}", hint="see `retr encoders ls`")
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + " ..."
        raise EncoderNotFoundError(f"no encoder named {shown!r}", hint="see `retr encoders ls`")
    head, colon, rest = name.partition(":")
    spec = get_spec(head)
    if colon and not spec.family:
        raise EncoderNotFoundError(f"no encoder named {name!r}", hint=f"did you mean {head!r}?")
    return spec, rest


def text_option(info: EncoderInfo) -> str | None:
    """Return the option with which an encoder that was set to a feature of images alone has words; else None.

    RetiZero with ``feature=retrieval`` has them with ``"feature=zero-shot"``.
    """
    try:
        spec, _ = find_spec(info.name)
    except EncoderNotFoundError:  # an encoder object that has no name here
        return None
    feature = inspect.signature(spec.load).parameters.get("feature")
    if info.text or not spec.card.text or feature is None or info.options.get("feature") in {None, feature.default}:
        return None
    return f"feature={feature.default}"


def load_encoder(
    name: str, *, device: str = "auto", precision: str = "auto", runtime: str | None = None, **options: Any
) -> BaseEncoder:
    """Load an encoder.

    Parameters
    ----------
    name
        As ``retr encoders ls`` lists it: ``"lite"``, ``"flair"``, ``"open_clip:ViT-B-32/openai"``,
        ``"hf:facebook/dinov2-base"``.
    device
        ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; several, a process each, as
        ``"cuda:0,cuda:1"`` or ``"cuda:all"``.
    precision
        ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    runtime
        ``"onnx"``: a torch network embeds pictures on ONNX Runtime, in fp32 on the CPU, where its vectors are torch's
        within 5e-5; None or ``"torch"``: as it is.
    **options
        The encoder's own, such as ``weights=PATH`` or ``feature="retrieval"``; None means the default.

    Raises
    ------
    EncoderNotFoundError
        If the name is not registered.
    UsageError
        If an option is not one of the encoder's.
    WeightsError
        If a checkpoint is missing or not what it should be.

    Examples
    --------
    >>> load_encoder("rad_dino")
    Traceback (most recent call last):
    retr.index.errors.EncoderNotFoundError: no encoder named 'rad_dino'; did you mean 'rad-dino'?
    """
    spec, rest = find_spec(name)
    if spec.family and not rest:
        raise UsageError(f"{name!r} names a family of encoders", hint=f"say which: {spec.card.name}")
    given = {key: value for key, value in options.items() if value is not None}
    _require_options(name, spec.options, given)
    if runtime is not None:
        check_choice("runtime", runtime, ("torch", "onnx"))
    on_onnx = runtime == "onnx"
    if on_onnx:
        if device not in {"auto", "cpu"} or precision not in {"auto", "fp32"}:
            raise UsageError(
                f"runtime 'onnx' runs in fp32 on a CPU, got device {device!r} and precision {precision!r}",
                hint="leave out the runtime, or the device and the precision",
            )
        device, precision = "cpu", "fp32"
    for option, value in given.items():
        _check_readable(option, value, name)
    if "," in device or device == "cuda:all":
        from retr.retrieval.encoders.runtime.parallel import ParallelEncoder, split_devices

        devices = split_devices(device)
        if len(devices) > 1:
            return ParallelEncoder(load_encoder, name, devices, {**given, "precision": precision})
        device = devices[0]
    model = (rest,) if spec.family else ()
    said = "".join(f", {key}={value}" for key, value in given.items() if key not in {"weights", "text_model"})
    with _LOADING, waiting(f"loading the encoder {name!r}{said}"):
        with needed():
            encoder = spec.load(*model, device=device, precision=precision, **given)
            if on_onnx:
                from retr.retrieval.encoders.runtime.onnx_graph import run_on_onnx

                run_on_onnx(encoder)
        locations.remember_files(encoder.info, given)
    return encoder


def recorded_options(info: EncoderInfo) -> dict[str, Any]:
    """Return the options that load an encoder again as an index recorded it, wherever its files lie on this machine."""
    return {**locations.recall_files(info), **find_spec(info.name)[0].recorded_options, **info.options}


def require_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an option that the encoder of a name does not take, without loading it.

    One that is registered nowhere, such as the model behind vectors that were made elsewhere, takes where to compute
    and how precisely, and nothing else.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if given.keys() <= set(_EVERYWHERE):
        return
    try:
        own: Iterable[str] = find_spec(name)[0].options
    except EncoderNotFoundError:
        own = ()
    _require_options(name, own, given)


def _require_options(name: str, own: Iterable[str], given: Mapping[str, Any]) -> None:
    unknown = sorted(given.keys() - {*own, *_EVERYWHERE})
    if unknown:
        raise UsageError(
            f"encoder {name!r} has no option {unknown[0]!r}",
            hint=f"it takes {', '.join([*(option for option in own if option not in _EVERYWHERE), *_EVERYWHERE])}",
        )


def _check_readable(option: str, value: object, name: str) -> None:
    """Raise `WeightsError` where a path among the options is one that the system refuses to look at.

    What is not there is told by whoever needs it, who knows what should be.
    """
    if not isinstance(value, str | os.PathLike):
        return
    try:
        home(value).stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError, UsageError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise WeightsError(
            f"no file or folder at {os.fspath(value)!r}, {option} of {name!r}: {said}", hint="check the path"
        ) from error
