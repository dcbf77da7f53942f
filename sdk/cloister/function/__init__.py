"""What a confidential function is written with.

    from typing import Annotated
    from cloister.function import boolean, function, sealed

    @function("is-adult", output=boolean())
    def is_adult(age: Annotated[int, sealed("ages", context=["person"])]) -> bool:
        return age >= 18

The function stays an ordinary function. Its declaration becomes a manifest, the manifest and the code
become a bundle, and the bundle's digest is what a tenant grants rights to.
"""

from cloister.function.declare import function
from cloister.function.egress import Origin, Response, deliver, origin
from cloister.function.manifest import Limits, Manifest
from cloister.function.outputs import boolean, enum, number, record, sealed, text, token

__all__ = [
    "Limits",
    "Manifest",
    "Origin",
    "Response",
    "boolean",
    "deliver",
    "enum",
    "function",
    "number",
    "origin",
    "record",
    "sealed",
    "text",
    "token",
]
