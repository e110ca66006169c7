"""Recordings, strokes and kinetic chains of a Volant service, as Arrow tables.

    import volant

    service = volant.connect("http://127.0.0.1:8000")
    service.query("SELECT stroke, count(*) AS n FROM strokes GROUP BY stroke").to_pandas()

``volant.open`` reads a data folder (or a copy, or an unpacked archive) without a service. Units are in the names of columns and
in their metadata: ``volant.comments(table)``.
"""

from .client import Client, Session, connect
from .errors import Unreachable, VolantError
from .folder import Folder, open  # noqa: A004 - it is volant.open, as gzip.open is
from .sets import Label, read_labels, write_set
from .tables import comments

__all__ = [
    "Client",
    "Folder",
    "Label",
    "Session",
    "Unreachable",
    "VolantError",
    "comments",
    "connect",
    "open",
    "read_labels",
    "write_set",
]
__version__ = "0.1.0"
