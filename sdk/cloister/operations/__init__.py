"""What a client can do, a module a noun; each operation is written once, for `Client` and `AsyncClient`.

driving    an operation is a generator of steps; `@operation` makes a method of it, `awaited` a coroutine
flows      what all operations stand on: one call, data keys, the keys that a deployment vouches for
values     seal, open
objects    files and streams
functions  confidential functions and jobs
tokens     tokenize, detokenize
keys       encrypt, mac, sign, rewrap, import, export
host       attest, and any operation by name
"""

from cloister.operations.functions import FunctionOperations
from cloister.operations.host import HostOperations
from cloister.operations.keys import KeyOperations
from cloister.operations.objects import ObjectOperations, StoredObjectOperations
from cloister.operations.tokens import TokenOperations
from cloister.operations.values import ValueOperations

__all__ = [
    "FunctionOperations",
    "HostOperations",
    "KeyOperations",
    "ObjectOperations",
    "StoredObjectOperations",
    "TokenOperations",
    "ValueOperations",
]
