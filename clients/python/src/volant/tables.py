"""Small helpers on Arrow tables."""

from __future__ import annotations

import pyarrow as pa


def comments(table: pa.Table | pa.Schema) -> dict[str, str]:
    """What each column is: unit, range, and what a null means.

    Columns that a statement computes have no comment and are left out.
    """
    schema = table.schema if isinstance(table, pa.Table) else table
    found = {}
    for field in schema:
        comment = (field.metadata or {}).get(b"comment")
        if comment:
            found[field.name] = comment.decode()
    return found
