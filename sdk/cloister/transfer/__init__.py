"""Move sealed values from one place to another through a confidential function, each once.

`items` reads them, `state` remembers what was done over crashes, `run` calls the function for each; the
command `cloister transfer` puts them together. Nothing here opens a value.
"""

from cloister.transfer.items import Fields, Item, Items, RecordItems, StoredItems, Unusable, ValueStore
from cloister.transfer.run import Failure, Report, Sink, Transfer
from cloister.transfer.state import State

__all__ = [
    "Failure",
    "Fields",
    "Item",
    "Items",
    "RecordItems",
    "Report",
    "Sink",
    "State",
    "StoredItems",
    "Transfer",
    "Unusable",
    "ValueStore",
]
