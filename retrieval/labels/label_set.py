"""Label sets: the classes of a zero-shot question, each with its prompts.

A label file is YAML (or JSON) in one of three forms::

    [glaucoma, macular hole]                      a class is its own prompt
    macular hole: [a hole in the macula, ...]     a class and its prompts
    name: my-set                                  with everything
    templates: ["A fundus photograph of {}"]      each prompt goes into each template
    multilabel: false                             true: findings that may be present together
    ordered: false                                true: the classes are grades, from the least to the most
    classes:
      - name: macular hole
        prompts: [a macular hole, ...]            by default the name
        templates: ["{}"]                         by default those of the set
        aliases: [MH]                             other spellings of the class in a label column

Sets that ship are named instead of given as a file; `shipped` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.index.errors import UsageError
from retr.index.machine.home import home
from retr.retrieval.regular_files import NotRegularError, open_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

_SET_KEYS = {"name", "about", "source", "templates", "multilabel", "ordered", "classes"}
_CLASS_KEYS = {"name", "prompts", "templates", "aliases"}


@dataclass(frozen=True)
class LabelClass:
    """One class: its name, its finished prompts, and other spellings of its name."""

    name: str
    prompts: tuple[str, ...]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelSet:
    """The classes of a question, in order.

    ``multilabel`` says that several may be true of one picture, so that each is a question of its own; ``ordered`` that
    the classes are grades, in their order.
    """

    name: str
    classes: tuple[LabelClass, ...]
    multilabel: bool = False
    about: str = ""
    ordered: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return [one.name for one in self.classes]

    def class_of(self, value: object) -> int | None:
        """Find the class that a value of a label column names, by name or alias, whatever its case.

        A name of a folder may have ``_`` for the blanks, as long as it then names one class.

        >>> load_labels(["Macular hole", "drusen"]).class_of("macular_hole")
        0
        """
        if value is None:
            return None
        text = str(value).strip().casefold()
        exact, blanks = self._spellings
        return exact[text] if text in exact else blanks.get(_with_blanks(text))

    @cached_property
    def _spellings(self) -> tuple[dict[str, int], dict[str, int | None]]:
        """All spellings, and the same with blanks, where None stands for what several classes are called."""
        exact = {alias.casefold(): i for i, one in enumerate(self.classes) for alias in one.aliases}
        exact |= {one.name.casefold(): i for i, one in enumerate(self.classes)}
        blanks: dict[str, int | None] = {}
        for spelling, place in exact.items():
            same = _with_blanks(spelling)
            blanks[same] = place if blanks.get(same, place) == place else None
        return exact, blanks


def _with_blanks(text: str) -> str:
    return " ".join(text.replace("_", " ").split())


def shipped() -> list[str]:
    """Names of the label sets that come with retr.

    >>> shipped()
    ['chestxray14', 'chexpert-5', 'fundus-39', 'odir', 'retizero-14']
    """
    folder = resources.files("retr.retrieval.labels")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_labels(source: LabelSet | str | Path | Sequence[str]) -> LabelSet:
    """Read a label set.

    Parameters
    ----------
    source
        The name of a shipped set, the path of a YAML or JSON file, the classes' names themselves; or a set as it is.

    Raises
    ------
    UsageError
        There is no such set or file, or it repeats a class or gives two the same alias, or a prompt is empty.

    Examples
    --------
    >>> load_labels("chexpert-5").names
    ['atelectasis', 'cardiomegaly', 'consolidation', 'edema', 'pleural effusion']
    >>> load_labels(["glaucoma", "drusen"]).classes[1].prompts
    ('drusen',)
    """
    if isinstance(source, LabelSet):
        return source
    if not isinstance(source, str | Path):
        return _read_set(list(source), "labels")
    path = home(source)
    if not path.exists() and str(source) in shipped():
        text = (resources.files("retr.retrieval.labels") / f"{source}.yaml").read_text(encoding="utf-8")
        return _parse(text, str(source))
    try:
        with open_regular(path) as stream:
            text = stream.read().decode("utf-8")
    except NotRegularError:
        raise UsageError(f"label set {str(source)!r} is not a regular file", hint="give a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UsageError(
            f"no label set {str(source)!r}: {reason}",
            hint=f"give a YAML file or one of {', '.join(shipped())}",
        ) from error
    return _parse(text, path.stem)


def _parse(text: str, name: str) -> LabelSet:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice, which YAML would let win in silence."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise UsageError(f"label set {name!r} repeats {key!r}", hint="name each class once")
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        data = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"label set {name!r} is not YAML{where}: {getattr(error, 'problem', error)}") from error
    return _read_set(data, name)


def _read_set(data: Any, name: str) -> LabelSet:
    if isinstance(data, list):
        data = {"classes": data}
    if not isinstance(data, dict) or not data:
        raise UsageError(f"label set {name!r} holds no classes", hint="give a list of class names")
    if "classes" not in data:
        data = {"classes": data}
    unknown = sorted(map(str, set(data) - _SET_KEYS))
    if unknown:
        raise UsageError(
            f"label set {name!r} has the unknown key {unknown[0]!r}", hint=f"known: {', '.join(sorted(_SET_KEYS))}"
        )
    classes = data["classes"]
    if isinstance(classes, dict):
        classes = [{"name": key, "prompts": prompts} for key, prompts in classes.items()]
    if not isinstance(classes, list) or not classes:
        raise UsageError(f"label set {name!r} holds no classes", hint="give a list of class names")
    templates = _texts(data.get("templates") or ["{}"], "template", name)
    read = tuple(_read_class(item, templates, name) for item in classes)
    seen: set[str] = set()
    for one in read:
        if one.name.casefold() in seen:
            raise UsageError(f"label set {name!r} repeats the class {one.name!r}", hint="name each class once")
        seen.add(one.name.casefold())
    _require_own_aliases(read, name)
    return LabelSet(
        name=str(data.get("name") or name),
        classes=read,
        multilabel=bool(data.get("multilabel", False)),
        about=str(data.get("about") or ""),
        ordered=bool(data.get("ordered", False)),
    )


def _require_own_aliases(classes: Sequence[LabelClass], name: str) -> None:
    """Refuse a spelling of two classes: which of them a label names would depend on their order."""
    whose = {one.name.casefold(): one.name for one in classes}
    for one in classes:
        for alias in one.aliases:
            other = whose.setdefault(alias.casefold(), one.name)
            if other != one.name:
                raise UsageError(
                    f"label set {name!r} calls {other!r} and {one.name!r} {alias!r}", hint="give it to one of them"
                )


def _read_class(item: Any, templates: tuple[str, ...], name: str) -> LabelClass:
    if not isinstance(item, dict):
        item = {"name": item}
    unknown = sorted(map(str, set(item) - _CLASS_KEYS))
    if unknown:
        raise UsageError(
            f"a class of label set {name!r} has the unknown key {unknown[0]!r}",
            hint=f"known: {', '.join(sorted(_CLASS_KEYS))}",
        )
    (own,) = _texts([item.get("name")], "class name", name)
    prompts = _texts(own if item.get("prompts") is None else item["prompts"], f"prompt of {own!r}", name)
    if item.get("templates") is not None:
        templates = _texts(item["templates"], f"template of {own!r}", name)
    for template in templates:
        if "{}" not in template:
            raise UsageError(f"the template {template!r} of label set {name!r} has no {{}} for the prompt")
    finished = dict.fromkeys(template.replace("{}", prompt) for prompt in prompts for template in templates)
    return LabelClass(own, tuple(finished), _texts(item.get("aliases") or [], f"alias of {own!r}", name))


def _texts(value: Any, what: str, name: str) -> tuple[str, ...]:
    """Read one text or a list of texts; none may be empty."""
    values = value if isinstance(value, list) else [value]
    if not values and not what.startswith("alias"):
        raise UsageError(f"label set {name!r} has no {what}")
    for text in values:
        if isinstance(text, bool):
            raise UsageError(
                f"label set {name!r} has a {what} that YAML reads as {str(text).lower()}",
                hint='write it in quotes: "no"',
            )
        if not isinstance(text, str | int | float) or not str(text).strip():
            raise UsageError(f"label set {name!r} has an empty {what}", hint="write the words, or leave the entry out")
    return tuple(str(text).strip() for text in values)
