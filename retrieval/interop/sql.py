"""SQL over an index's rows, by DuckDB (extra ``sql``): read-only, in memory, and with no way to a file or a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from retr.index.errors import UsageError
from retr.index.machine.extras import needed

if TYPE_CHECKING:
    from retr.retrieval.index_like import IndexLike


def sql(index: IndexLike, query: str) -> pa.Table:
    """Ask the rows of an index in SQL, as the table ``rows``.

    Parameters
    ----------
    query
        One statement of DuckDB's SQL. It sees the metadata of the live rows, not the vectors, and nothing else: no
        file, no extension, no network. What it changes, it changes in memory alone.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    UsageError
        It cannot be read, or fails.
    MissingExtraError
        The extra ``sql`` is not installed.

    Examples
    --------
    >>> from retr.sample import sample_index
    >>> sample_index().sql("SELECT label, count(*) AS n FROM rows GROUP BY label ORDER BY label").to_pylist()
    [{'label': 'glaucoma', 'n': 12}, {'label': 'healthy', 'n': 12}]
    """
    with needed():
        import duckdb
    # what is read by DuckDB are these rows, by their name; variables of this program are none of its tables
    settings = {"enable_external_access": "false", "python_enable_replacements": "false"}
    with duckdb.connect(":memory:", config=settings) as connection:
        connection.register("rows", index.store.table())
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute("SET autoload_known_extensions = false")
        connection.execute("SET lock_configuration = true")
        try:
            found = connection.sql(query)
            return pa.table({}) if found is None else found.to_arrow_table()
        except duckdb.Error as error:
            said = " ".join(str(error).split())[:300]
            raise UsageError(f"the query cannot be answered: {said}", hint="the table is called rows") from None
