"""Whether two pictures are parts of one, moved, scaled and turned: decided by where their keypoints lie.

Keypoints that look alike are matched; a similarity transform that most of them agree with is sought among those through
two matches (RANSAC) and fitted to all that agree. Then the pixels decide: where the two lie on each other, their detail
must correlate. Two photographs of one eye share vessels, which makes keypoints agree, but not pixel by pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retr.retrieval.audit.keypoints import Detail, Keypoints

MIN_MATCHES = 8
MIN_CORRELATION = 0.6
MIN_OVERLAP = 0.6
# Of squared distances, nearest to second nearest.
_RATIO = 0.72
_TRIALS = 1000
# In pixels of the finer picture; and how much finer one may be.
_TOLERANCE = 2.0
_LARGEST_SCALE = 3.0
# Two matches nearer to each other say little of scale and angle.
_MIN_DISTANCE = 10.0
# A copy with less than this share of the other is called a crop, and one turned by less than this angle not turned.
_WHOLE = 0.92
_TURNED = 0.5


@dataclass(frozen=True)
class Overlay:
    """How one picture lies on another of which it is a part, or which is a part of it.

    Attributes
    ----------
    correlation
        Of their detail where they overlap.
    share
        Of the larger picture's field, how much both show.
    degrees
        By which one is turned against the other: 0 to 180.
    mirrored
        Whether one is the other way round.
    """

    correlation: float
    share: float
    degrees: float
    mirrored: bool

    @property
    def kind(self) -> str:
        """``"crop"``, ``"rotated"``, ``"mirrored"`` or ``"near"``: the first that is true."""
        turned = self.degrees >= _TURNED
        # the corners that a turned copy loses make it no crop
        if self.share < _WHOLE - turned * np.sin(np.radians(min(self.degrees, 30))):
            return "crop"
        return "rotated" if turned else "mirrored" if self.mirrored else "near"

    @property
    def how(self) -> str:
        """The same in words.

        >>> Overlay(0.9, 0.49, 4.2, mirrored=True).how
        'mirrored crop to 49 % of the area, rotated by 4 degrees'
        """
        said = ["crop" if self.kind == "crop" else "copy"]
        if self.mirrored:
            said.insert(0, "mirrored")
        if self.kind == "crop":
            said.append(f"to {self.share:.0%} of the area".replace("%", " %"))
        turned = self.degrees >= _TURNED
        return " ".join(said) + f", rotated by {self.degrees:.0f} degree{'s' * (round(self.degrees) != 1)}" * turned


def overlay(a: Keypoints, b: Keypoints, details: Callable[[], tuple[Detail, Detail] | None]) -> Overlay | None:
    """Return how two pictures lie on each other, also where one is mirrored; ``None`` where they do not.

    ``details`` are asked for where the keypoints agree; it may have none.
    """
    for mirrored in (False, True):
        fitted = _align(a, b.mirrored() if mirrored else b)
        if fitted is None:
            continue
        both = details()
        if both is None:
            return None
        one, other = both[0], both[1].mirrored() if mirrored else both[1]
        scale, shift = fitted
        if abs(scale) > 1:  # seen from the finer one: its pixels lie densely on the other
            one, other, scale, shift = other, one, 1 / scale, -shift / scale
        found = _overlap(one, other, scale, shift)
        if found is not None:
            return Overlay(*found, degrees=float(abs(np.degrees(np.angle(scale)))), mirrored=mirrored)
    return None


def _align(a: Keypoints, b: Keypoints) -> tuple[complex, complex] | None:
    """Return the scale (with its angle) and shift that take points of ``a`` to ``b``; ``None`` where too few agree."""
    if min(len(a.points), len(b.points)) < MIN_MATCHES:
        return None
    if len(a.points) > len(b.points):
        back = _align(b, a)
        return None if back is None else (1 / back[0], -back[1] / back[0])
    likeness = a.roots() @ b.roots().T
    nearest = likeness.argmax(axis=1)
    two = 2 - 2 * np.partition(likeness, -2, axis=1)[:, -2:]
    matched = np.flatnonzero(two[:, 1] < _RATIO * two[:, 0])
    if len(matched) < MIN_MATCHES:
        return None
    return _fit(a.points[matched].astype(np.complex128), b.points[nearest[matched]].astype(np.complex128))


def _fit(p: NDArray[np.complex128], q: NDArray[np.complex128]) -> tuple[complex, complex] | None:
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(p), (2, _TRIALS))
    apart = np.minimum(abs(p[i] - p[j]), abs(q[i] - q[j])) > _MIN_DISTANCE
    i, j = i[apart], j[apart]
    scales = (q[j] - q[i]) / (p[j] - p[i])
    usable = (abs(scales) <= _LARGEST_SCALE) & (abs(scales) >= 1 / _LARGEST_SCALE)
    scales, i = scales[usable], i[usable]
    if not len(scales):
        return None
    agree = _agree(p, q, scales[:, None], (q[i] - scales * p[i])[:, None])
    best = agree[agree.sum(axis=1).argmax()]
    scale, shift = 0j, 0j
    for _ in range(2):
        # several keypoints at one place, of different angles, are one witness
        if len(np.unique(np.rint(p[best]))) < MIN_MATCHES or len(np.unique(np.rint(q[best]))) < MIN_MATCHES:
            return None
        own, other = p[best] - p[best].mean(), q[best] - q[best].mean()
        scale = complex(np.vdot(own, other) / np.vdot(own, own).real)
        shift = complex(q[best].mean() - scale * p[best].mean())
        if not 1 / _LARGEST_SCALE <= abs(scale) <= _LARGEST_SCALE:
            return None
        best = _agree(p, q, scale, shift)
    return (scale, shift) if len(np.unique(np.rint(p[best]))) >= MIN_MATCHES else None


def _agree(p: NDArray[np.complex128], q: NDArray[np.complex128], scale: Any, shift: Any) -> NDArray[np.bool_]:
    """Return which matches a transform explains: bool, ``(n,)`` or a row for each of several transforms."""
    return np.asarray(abs(scale * p + shift - q) < _TOLERANCE * np.maximum(1, np.abs(scale)), dtype=np.bool_)


def _overlap(a: Detail, b: Detail, scale: complex, shift: complex) -> tuple[float, float] | None:
    """Return the correlation where two pictures overlap, and which share of the larger that is."""
    with needed():
        from scipy.ndimage import map_coordinates

    y, x = np.nonzero(a.field)
    there = scale * (x + 1j * y) + shift
    places = np.stack([there.imag, there.real])
    inside = map_coordinates(b.field.astype(np.float32), places, order=1) > 0.5
    areas = len(x), b.field.sum() / abs(scale) ** 2
    if inside.sum() < MIN_OVERLAP * min(areas) or not inside.any():
        return None
    own, other = a.fine[y[inside], x[inside]], map_coordinates(b.fine, places[:, inside], order=1)
    correlation = float(np.corrcoef(own, other)[0, 1]) if own.std() > 0 and other.std() > 0 else 0.0
    return (correlation, float(inside.sum() / max(areas))) if correlation >= MIN_CORRELATION else None
