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
from cloister.function.limits import Budget, Limits, budget
from cloister.function.manifest import Manifest
from cloister.function.outputs import boolean, enum, number, record, sealed, text, token
from cloister.function.progress import progress

__all__ = [
    "Budget",
    "Limits",
    "Manifest",
    "Origin",
    "Response",
    "boolean",
    "budget",
    "deliver",
    "enum",
    "function",
    "number",
    "origin",
    "progress",
    "record",
    "sealed",
    "text",
    "token",
]
