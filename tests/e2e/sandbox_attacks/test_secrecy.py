"""One function, principal or tenant finds nothing of another's call in any memory it can reach."""

from __future__ import annotations

import pytest

from cloister.errors import FunctionError

from .conftest import Prison

pytestmark = pytest.mark.timeout(120)

# Everything Python holds in this process, by way of the collector and of what it tracks.
SEARCH = """
needle = "-".join(["evil", "plain", "4711"])
seen, todo = set(), gc.get_objects()
found = 0
while todo:
    thing = todo.pop()
    if id(thing) in seen:
        continue
    seen.add(id(thing))
    if isinstance(thing, str) and needle == thing:
        found += 1
    elif not isinstance(thing, (str, bytes, int, float)):
        todo.extend(gc.get_referents(thing))
return str(found)
"""


def test_another_principals_input_is_not_in_reach(prison: Prison) -> None:
    body = f"""
if value != "search":
    state["kept"] = value
    return "kept"
del value
state.setdefault("searches", 0)
{SEARCH.strip()}
"""
    assert prison.run(body, "evil-plain-4711", principal="victim") == "kept"
    assert prison.run(body, "search", principal="attacker") == "0"
    # The search is good: in the victim's own process it finds what is kept.
    assert prison.run(body, "search", principal="victim") == "1"


def test_state_of_one_principal_is_its_own(prison: Prison) -> None:
    body = 'state.setdefault("seen", []).append(value)\nreturn ",".join(state["seen"])'
    assert prison.run(body, "a", principal="one") == "a"
    assert prison.run(body, "b", principal="two") == "b"
    assert prison.run(body, "c", principal="one", tenant="other") == "c"


def test_the_zygote_holds_no_callers_data(prison: Prison) -> None:
    """Workers are forked from a process that has never seen an input."""
    prison.run("state['x'] = value\nreturn value", "evil-plain-4711", principal="first")
    fresh = "return repr([k for k in state])"
    assert prison.run(fresh, principal="second") == "[]"


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError('plain-4711')",
        "raise type('plain_4711', (Exception,), {})()",
        "raise BaseException('plain-4711')",
        "print('plain-4711'); sys.stderr.write('plain-4711'); raise KeyError('plain-4711')",
        "sys.excepthook = print; raise SystemExit('plain-4711')",
        "class E(Exception):\n    __name__ = 'plain-4711'\nE.__name__ = 'plain-4711'\nraise E",
    ],
)
def test_an_error_carries_no_text(prison: Prison, body: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FunctionError) as caught:
        prison.run(body)
    error = caught.value
    assert "4711" not in f"{error!r} {error} {error.__dict__} {error.__cause__!r} {error.__context__!r}"
    assert "4711" not in "".join(capfd.readouterr())


def test_an_undeclared_origin_is_not_asked(prison: Prison) -> None:
    assert prison.run("return attempt(lambda: partner.get('/'))") == "CloisterError"


@pytest.mark.parametrize(
    "draw",
    [
        "import random\nreturn str(random.random())",
        "import random\nreturn str(random.Random().random())",
        "import secrets\nreturn secrets.token_hex(16)",
        "import uuid\nreturn str(uuid.uuid4())",
        "import ssl\nreturn ssl.RAND_bytes(16).hex()",
        "import numpy\nreturn str(numpy.random.random())",
        "import numpy\nreturn str(numpy.random.default_rng().random())",
        "import tempfile\nreturn next(tempfile._get_candidate_names())",
    ],
    ids=["random", "Random", "secrets", "uuid4", "OpenSSL", "numpy.random", "default_rng", "tempfile"],
)
def test_no_two_workers_draw_the_same_random_numbers(prison: Prison, draw: str) -> None:
    drawn = [prison.run(draw, principal=principal, memory_mib=256) for principal in "abc"]
    assert len(set(drawn)) == 3


# Whatever is mapped near anything that Python or libc knows of, read through a pipe: write(2) says which
# addresses exist. The pattern does not match itself.
HUNT = r"""
import re
libc = ctypes.CDLL(None, use_errno=True)
inward, outward = os.pipe()
os.set_blocking(outward, False)
libc.sbrk.restype = ctypes.c_void_p
known = [id(thing) for thing in gc.get_objects()[::20]] + [id(type), id(gc), id(socket), libc.sbrk(0)]
known += [ctypes.cast(getattr(libc, name), ctypes.c_void_p).value for name in ("write", "malloc", "environ")]
known += [ctypes.addressof(ctypes.c_char.from_buffer(bytearray(1 << shift))) for shift in (10, 18, 22)]
regions = {address >> 21 for address in known}
regions |= {region + step for region in regions for step in (-2, -1, 1, 2)}
found, pages = set(), 0
for region in regions:
    for page in range(512):
        address = (region << 21) + (page << 12)
        if libc.write(outward, ctypes.c_void_p(address), ctypes.c_size_t(4096)) == 4096:
            pages += 1
            found |= set(re.findall(rb"evil-plain-\d{4}", os.read(inward, 4096)))
os.close(inward); os.close(outward)
return f"{len(found)} {pages > 1000}"
"""


def test_nothing_of_another_call_is_in_the_address_space(prison: Prison) -> None:
    body = f"""
if value != "search":
    state["kept"] = [value, value.encode(), value * 3]
    return "kept"
{HUNT.strip()}
"""
    assert prison.run(body, "evil-plain-4711", principal="victim", memory_mib=128) == "kept"
    assert prison.run(body, "evil-plain-4712", principal="victim", tenant="other", memory_mib=128) == "kept"
    # The one is new, the other was there before: neither has anything.
    for principal in ("attacker", "attacker"):
        assert prison.run(body, "search", principal=principal, memory_mib=128) == "0 True"
    # The hunt is good: it finds what the process itself keeps, and only that.
    assert prison.run(body, "search", principal="victim", memory_mib=128) == "1 True"
