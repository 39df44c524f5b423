"""``retr config``: what is set in ``retr.toml``, and where each value comes from."""

from __future__ import annotations

from retr.cli import _settings
from retr.cli._options import IndexOption, JsonOption, unfold
from retr.cli._output import Output, show


@unfold
def config(*, index: IndexOption = None, json_: JsonOption = False) -> None:
    """Show what is set in retr.toml, and where each value comes from.

    A file beside the index counts before the one in the user's folder; what a command line says counts before both.
    Values are TOML: encoder = "flair", columns = ["label", "age"]. A key that is not known is an error.

    Example: retr config
    """
    out = Output(json_=json_)
    settings = _settings.read(index)
    rows = []
    for key, about in _settings.KEYS.items():
        one = settings.get(key)
        value = about.default if one is None else one.value
        value = value if json_ else show(value)
        origin = "default" if one is None else str(one.file)
        rows.append({"key": key, "value": value, "from": origin, "for": about.help})
    out.rows(rows, ["key", "value", "from", "for"])
    for file in _settings.files(index):
        if not file.is_file():
            out.note(f"there is no {str(file)!r}")
