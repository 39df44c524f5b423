"""State dicts as training programs save them: below a name, and with a prefix on every key.

``{"model": {"module.backbone.x": ...}, "epoch": 3}`` holds ``x``. `unwrap` takes off what is known to say nothing of
the network, and says what it took off and what it left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retr.index.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

# Names below which programs save a network, as far as they are names of nothing else.
CONTAINERS = ("model_state_dict", "state_dict", "model", "teacher")
# What torch's own wrappers, training programs (Lightning) and networks that hold an encoder put before its keys.
PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "timm_model.")
# Heads of self-distillation, which lie beside a backbone and are no part of it.
_BESIDE = ("dino_head.", "ibot_head.")
_DEEPEST = 8


@dataclass(frozen=True)
class Unwrapped:
    """A network's tensors by its own names.

    Attributes
    ----------
    state
        The tensors.
    taken_off
        The names and prefixes that were taken off, from the outside in.
    left_out
        What else the file holds: other networks beside the one that was taken, heads beside a backbone.
    """

    state: dict[str, Tensor]
    taken_off: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def notes(self, file: str) -> list[str]:
        """Return what was taken off and left out: a line, or none where the file held the tensors by their names."""
        taken = f"took {', '.join(map(repr, self.taken_off))} off the names in it" if self.taken_off else ""
        left = f"left out its {', '.join(map(repr, self.left_out))}" if self.left_out else ""
        said = "; ".join(part for part in (taken, left) if part)
        return [f"{file!r}: {said}"] if said else []


def unwrap(
    loaded: Mapping[str, Any], *, file: str, containers: Sequence[str] = CONTAINERS, prefixes: Sequence[str] = PREFIXES
) -> Unwrapped:
    """Take the wrappers off what `load_state_dict` read.

    Parameters
    ----------
    loaded
        Tensors, perhaps below names, beside whatever a program kept of its training.
    file
        The checkpoint's name, for messages.
    containers, prefixes
        What may be taken off. A prefix goes where every key has it; ``"backbone."`` also where heads of
        self-distillation lie beside it, which are left out.

    Raises
    ------
    WeightsError
        There are no tensors, or two networks of which nothing says which is meant.

    Examples
    --------
    >>> import torch
    >>> found = unwrap({"epoch": 3, "teacher": {"module.backbone.w": torch.ones(1)}}, file="x.pth")
    >>> found.state.keys(), found.taken_off
    (dict_keys(['w']), ('teacher', 'module.', 'backbone.'))
    """
    state, taken, left = dict(loaded), [], []
    for _ in range(_DEEPEST):
        # a tensor beside a container (a loss, the state of a random generator) is no network's
        inner = {key: value for key, value in state.items() if isinstance(value, dict) and _reaches_tensors(value)}
        known = [name for name in containers if name in inner]
        if not known and _holds_tensors(state):
            break
        if len(known) > 1:
            raise WeightsError(
                f"{file!r} holds several networks: {', '.join(map(repr, known))}",
                hint="save the state dict of the one you want alone",
            )
        if not known:
            break
        taken.append(known[0])
        left += [key for key in inner if key != known[0] and not key.startswith(("optim", "scaler", "sched", "lr_"))]
        state = dict(state[known[0]])
    if not _holds_tensors(state):
        raise WeightsError(
            f"{file!r} holds no state dict, but {_listed(state)}", hint="save the network's state dict alone"
        )
    plain = next((key for key, value in state.items() if not _is_tensor(value)), None)
    if plain is not None:
        raise WeightsError(f"{file!r} holds {plain!r}, which is no tensor", hint="save its state dict alone")
    for _ in range(_DEEPEST):
        prefix = next((one for one in prefixes if _may_go(one, state)), None)
        if prefix is None:
            break
        taken.append(prefix)
        left += sorted({key.partition(".")[0] for key in state if not key.startswith(prefix)})
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return Unwrapped(state, tuple(taken), tuple(left))


def _may_go(prefix: str, state: Mapping[str, Any]) -> bool:
    others = [key for key in state if not key.startswith(prefix)]
    return len(others) < len(state) and all(prefix == "backbone." and key.startswith(_BESIDE) for key in others)


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _holds_tensors(state: Mapping[Any, Any]) -> bool:
    return any(_is_tensor(value) for value in state.values()) and all(isinstance(key, str) for key in state)


def _reaches_tensors(value: Mapping[Any, Any], depth: int = 0) -> bool:
    inner = [one for one in value.values() if isinstance(one, dict)]
    return _holds_tensors(value) or (depth < _DEEPEST and any(_reaches_tensors(one, depth + 1) for one in inner))


def _listed(state: Mapping[Any, Any]) -> str:
    names = [repr(key) for key in list(state)[:3]]
    return ", ".join(names) + (", ..." if len(state) > 3 else "") if names else "nothing"
