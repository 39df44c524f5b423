"""Pages out of templates: HTML that stands alone, in which no text of others acts.

jinja2 escapes what a template is given, after `visible` has shown control and format characters as their codes. The
templates lie in ``templates/``; a page of theirs fetches nothing, and its policy would not let it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retr.retrieval.visible_text import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **given: Any) -> str:
    """Return a page: a file of ``templates/`` filled with what is given; a name that is missing is an error."""
    return _environment().get_template(template).render(given)


def shown_value(value: object) -> str:
    r"""Return a value for a person.

    >>> shown_value(0.123456), shown_value(b"\x00"), shown_value("left")
    ('0.1235', '00', 'left')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return value.hex() if isinstance(value, bytes) else str(value)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalized(value: Any) -> Any:
    # what has __html__ is markup of our own
    return value if hasattr(value, "__html__") else visible(shown_value(value))
