"""Tables that map the class names of public sets to those of one protocol, so that several sets can be one pool.

A table is JSON: for every set the classes that it maps, and those that it does not, each with the reason. Names mean
what they mean in their own set: "MH" is a macular hole in one and media haze in another. A spelling that differs from
the table's in case, in blanks, ``_`` and ``-``, or in a leading number such as ``0.3.`` is the same name; any other is
refused, with the near ones. The tables that ship are named instead of given as a file; `shipped_maps` lists them.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.retrieval.evaluation.protocols.names import in_words
from retr.retrieval.labels.label_set import LabelSet, load_labels

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORM = '{"labels": "retizero-14", "sets": {"mine": {"classes": {"BRVO": "Retinal Vein Occlusion"}, "unmapped": {}}}}'


@dataclass(frozen=True)
class SetNames:
    """One set of a table.

    Attributes
    ----------
    classes
        The set's name of a class to the protocol's.
    unmapped
        The set's name of a class to the reason why it is none of the protocol's.
    title, source, notes
        What the set is, where it is had, and what has to be said of its names.
    """

    classes: Mapping[str, str]
    unmapped: Mapping[str, str]
    title: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()

    def find(self, name: str) -> str | None:
        """Return the table's spelling of a name; None where it is not in the table."""
        if name in self.classes or name in self.unmapped:
            return name
        return self._plain().get(plain(name))

    def near(self, name: str) -> str | None:
        """Return the name that one may be a misspelling of."""
        known, wanted = self._plain(), plain(name)
        found = difflib.get_close_matches(wanted, known, n=1, cutoff=0.7)
        found += [one for one in known if min(len(one), len(wanted)) > 3 and (wanted in one or one in wanted)]
        return known[found[0]] if found else None

    def _plain(self) -> dict[str, str]:
        return {plain(one): one for one in (*self.unmapped, *self.classes)}


@dataclass(frozen=True)
class ClassMap:
    """A table: for each set what its classes are called in one label set."""

    name: str
    labels: LabelSet
    sets: Mapping[str, SetNames]
    notes: tuple[str, ...] = ()

    def names_of(self, name: str) -> SetNames:
        """Return what the table says of a set.

        Raises
        ------
        UsageError
            It has no such set.
        """
        if name not in self.sets:
            raise UsageError(
                f"the map {self.name!r} has no set {name!r}",
                hint=f"it has {', '.join(self.sets)}; give another as a JSON file of your own with --map FILE",
            )
        return self.sets[name]

    def translate(self, name: str, counts: Mapping[str, int]) -> tuple[dict[str, str], list[dict[str, Any]]]:
        """Translate the class names of a set.

        Parameters
        ----------
        name
            The set.
        counts
            Its classes' names, as they are found, to numbers of images.

        Returns
        -------
        tuple
            The mapped names, found name to protocol's name; and the others, JSON-ready: ``name``, ``images``,
            ``reason``.

        Raises
        ------
        UsageError
            The table does not know a name.
        """
        names = self.names_of(name)
        unknown = [
            {"name": one, "images": count, "nearest": names.near(one)}
            for one, count in counts.items()
            if names.find(one) is None
        ]
        if unknown:
            raise UsageError(
                f"the map {self.name!r} does not know these classes of {name!r}: {in_words(unknown)}",
                hint="name them as the set does, leave them out with --without, or map them with --map FILE",
            )
        spelt = {one: str(names.find(one)) for one in counts}
        mapped = {one: names.classes[at] for one, at in spelt.items() if at in names.classes}
        left = [
            {"name": one, "images": counts[one], "reason": names.unmapped[at]}
            for one, at in spelt.items()
            if at not in names.classes
        ]
        return mapped, left


def plain(name: str) -> str:
    """Return a class's name without its case, the kind of its blanks and a leading number.

    >>> plain("0.3.DR1"), plain("Macular_hole "), plain("Non-Glaucoma"), plain("4")
    ('dr1', 'macular hole', 'non glaucoma', '4')
    """
    text = " ".join(re.sub(r"[\s_-]+", " ", name).casefold().split())
    return re.sub(r"^\d+(\.\d+)*[. ]+(?=\S)", "", text)


def shipped_maps() -> list[str]:
    """Names of the tables that come with retr.

    >>> shipped_maps()
    ['retizero-14']
    """
    return sorted(item.name.removesuffix(".json") for item in _folder().iterdir() if item.name.endswith(".json"))


def _folder() -> Any:
    return resources.files("retr.retrieval.evaluation.protocols") / "maps"


def load_map(source: str) -> ClassMap:
    """Read a table: the name of one that ships, or the path of a JSON file.

    Raises
    ------
    UsageError
        There is no such table; it is no JSON of this form; it maps to a name that its label set does not have, or the
        same name twice.
    """
    shipped = source in shipped_maps()
    try:
        text = ((_folder() / f"{source}.json") if shipped else home(Path(source))).read_text(encoding="utf-8")
        data = json.loads(text, object_pairs_hook=_once)
    except (OSError, ValueError) as error:
        twice = str(error) if isinstance(error, _TwiceError) else "no JSON"
        reason = error.strerror if isinstance(error, OSError) else twice
        hint = f"give a JSON file, or one of {', '.join(shipped_maps())}"
        raise UsageError(f"the map {source!r} cannot be read: {reason}", hint=hint) from None
    name = source if shipped else Path(source).stem
    if not (isinstance(data, dict) and isinstance(data.get("labels"), str) and isinstance(data.get("sets"), dict)):
        raise UsageError(f"the map {name!r} does not name its labels and sets", hint=f"write {_FORM}")
    labels = load_labels(data["labels"])
    sets = {one: _read_set(name, one, entry, labels) for one, entry in data["sets"].items()}
    return ClassMap(name, labels, sets, _texts(data.get("notes")))


class _TwiceError(ValueError):
    """A key of a JSON object stands twice, which JSON would let win in silence."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in [other for other, _ in pairs[:i]])
        raise _TwiceError(f"{twice!r} stands twice")
    return found


def _read_set(map_name: str, name: str, entry: Any, labels: LabelSet) -> SetNames:
    """Read one set of a table, and check it."""
    classes, unmapped = (entry.get(key, {}) if isinstance(entry, dict) else None for key in ("classes", "unmapped"))
    if not (_are_texts(classes) and _are_texts(unmapped)):
        raise UsageError(f"the set {name!r} of the map {map_name!r} is not readable", hint=f"write {_FORM}")
    if not name or "/" in name or "=" in name or "::" in name:
        raise UsageError(f"the map {map_name!r} names a set {name!r}", hint="name it in one word, without / and =")
    for target in classes.values():
        if target not in labels.names:
            near = difflib.get_close_matches(target, labels.names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(labels.names)}"
            raise UsageError(
                f"the map {map_name!r} maps to {target!r}, which the label set {labels.name!r} does not have", hint=hint
            )
    seen: dict[str, str | None] = {}
    for one in (*classes, *unmapped):
        target_of = classes.get(one)
        if seen.setdefault(plain(one), target_of) != target_of:
            raise UsageError(f"the map {map_name!r} gives {one!r} of {name!r} two meanings", hint="name it once")
    return SetNames(
        classes, unmapped, str(entry.get("title", "")), str(entry.get("source", "")), _texts(entry.get("notes"))
    )


def _are_texts(value: Any) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
