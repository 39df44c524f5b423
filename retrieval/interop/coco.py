"""COCO's annotations (``instances_*.json``) as a table of labels, one row a picture."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from retr.index.errors import UsageError
from retr.index.json_fields import parse_json
from retr.retrieval.regular_files import open_regular

if TYPE_CHECKING:
    import os

_LONGEST = 1 << 31


def read_coco(file: str | os.PathLike[str], *, column: str = "label") -> dict[str, list[str | None]]:
    """Return ``path`` and the classes of each picture, for ``Index.build(..., metadata=...)``.

    Parameters
    ----------
    file
        Annotations as COCO writes them: ``images``, ``categories`` and ``annotations``.
    column
        What the classes are called. Several in one picture are joined by ``|``, in the order of the categories; a
        picture without annotations has none.

    Raises
    ------
    UsageError
        It is no such file.

    Examples
    --------
    >>> import json, tempfile
    >>> from pathlib import Path
    >>> found = {"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
    ...          "categories": [{"id": 7, "name": "nodule"}, {"id": 9, "name": "effusion"}],
    ...          "annotations": [{"image_id": 1, "category_id": 9}, {"image_id": 1, "category_id": 7}]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "instances.json"
    ...     _ = file.write_text(json.dumps(found))
    ...     read_coco(file)
    {'path': ['a.png', 'b.png'], 'label': ['nodule|effusion', None]}
    """
    place = Path(file)
    try:
        with open_regular(place) as stream:
            data = parse_json(stream.read(_LONGEST))
        names = {one["id"]: str(one["name"]) for one in data["categories"]}
        paths = {one["id"]: str(one["file_name"]) for one in data["images"]}
        found: defaultdict[object, set[object]] = defaultdict(set)
        for one in data["annotations"]:
            if one["image_id"] not in paths or one["category_id"] not in names:
                raise UsageError(
                    f"{str(place)!r} has an annotation of a picture or a category that it does not list",
                    hint="write it again from where it came",
                )
            found[one["image_id"]].add(one["category_id"])
    except OSError as error:
        raise UsageError(f"{str(place)!r} cannot be read: {error.strerror or 'it is no file'}") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{str(place)!r} is not COCO's: it needs images, categories and annotations", hint="give instances_*.json"
        ) from None
    classes = ["|".join(name for id_, name in names.items() if id_ in found[image]) or None for image in paths]
    return {"path": list(paths.values()), column: classes}
