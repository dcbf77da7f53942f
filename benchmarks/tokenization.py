"""Tokenization and masking beside their peers, in one run.

    python benchmarks/tokenization.py [--json FILE]

Peers: libffx (FF1, one value at a time) and Powertools for AWS Lambda (`DataMasking.erase`). Each figure is
the best of several rounds on one core, so that other work on the machine shows least.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ffx
import msgspec

from cloister.mask import MASKED, PLAIN, Mask
from cloister_host.tokenization.compiler import compile_policy
from cloister_host.tokenization.ff1 import FF1
from cloister_host.tokenization.plans import Ff1Plan, HashPlan, VaultPlan
from cloister_host.tokenization.policies import PolicyDocument

BATCH = 10_000
ROUNDS = 5
KEY = bytes(range(32))
DIGITS = "0123456789"
DOCUMENT: Any = {
    "id": 48211,
    "name": "Ada Lovelace",
    "ssn": "123-45-6789",
    "card": {"pan": "4111111111111111", "exp": "12/27"},
    "email": "ada.lovelace@example.com",
    "address": {"street": "12 Analytical Row", "city": "London NW1"},
    "note": "gold card",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement; rates are per second, times in microseconds."""

    what: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    budget: float | None = None
    budget_ratio: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer."""
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.unit == "values/s" else self.theirs / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the budget holds."""
        checks = []
        if self.budget is not None:
            more = self.unit == "values/s"
            checks.append(self.ours >= self.budget if more else self.ours <= self.budget)
        if self.budget_ratio is not None and self.ratio is not None:
            checks.append(self.ratio >= self.budget_ratio)
        return all(checks) if checks else None


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """The least time `work` took."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - start) / times)
    return best


def encrypt_each(peer: ffx.FF1, values: list[str]) -> list[str]:
    return [peer.encrypt(value) for value in values]


def ff1() -> list[Figure]:
    cipher, peer = FF1(KEY, DIGITS), ffx.FF1(KEY, radix=10)
    figures = []
    for length, budget in ((9, 1_000_000.0), (16, None), (32, None)):
        values = ["".join(random.choices(DIGITS, k=length)) for _ in range(BATCH)]
        some = values[: BATCH // 10]
        assert cipher.encrypt(some) == [peer.encrypt(value) for value in some]
        figures.append(
            Figure(
                what=f"FF1, {length} digits, batch of {BATCH:,}",
                unit="values/s",
                ours=BATCH / seconds(partial(cipher.encrypt, values)),
                peer="libffx",
                theirs=len(some) / seconds(partial(encrypt_each, peer, some)),
                budget=budget,
                budget_ratio=15 if length == 9 else None,
            )
        )
    values = [f"{random.randrange(10**9):09}" for _ in range(BATCH)]
    tweaks = [random.randbytes(8) for _ in range(BATCH)]
    figures.append(
        Figure(
            what=f"FF1, 9 digits, batch of {BATCH:,}, a tweak a value",
            unit="values/s",
            ours=BATCH / seconds(lambda: cipher.encrypt(values, tweaks)),
        )
    )
    figures.append(
        Figure(
            what="FF1, 9 digits, one value",
            unit="us",
            ours=1e6 * seconds(lambda: cipher.encrypt(values[:1]), 500),
            peer="libffx",
            theirs=1e6 * seconds(lambda: peer.encrypt(values[0]), 500),
            budget_ratio=1,
        )
    )
    return figures


def policies() -> list[Figure]:
    ssns = [f"{random.randrange(10**9):09}" for _ in range(BATCH)]
    ssns = [f"{ssn[:3]}-{ssn[3:5]}-{ssn[5:]}" for ssn in ssns]
    cards = [f"{random.randrange(10**16):016}" for _ in range(BATCH)]
    rows = [
        ("SSN with hyphens, ff1", {"plan": "ff1", "type": "ssn"}, ssns),
        (
            "card keeping 6 + 4, ff1",
            {"plan": "ff1", "type": "pan", "preserve": {"prefix": 6, "suffix": 4}},
            cards,
        ),
        ("SSN, hash", {"plan": "hash", "type": "ssn"}, ssns),
        ("SSN, vault draws", {"plan": "vault", "type": "ssn"}, ssns),
    ]
    figures = []
    for what, document, values in rows:
        plan = compile_policy(msgspec.convert(document, PolicyDocument)).plan

        def work(plan: object = plan, values: list[str] = values) -> None:
            match plan:
                case Ff1Plan() | HashPlan():
                    plan.tokenize(values, KEY)
                case VaultPlan():
                    for value in values:
                        plan.draw(value)

        figures.append(Figure(what=f"policy: {what}", unit="values/s", ours=BATCH / seconds(work)))
    return figures


def masks() -> list[Figure]:
    from aws_lambda_powertools.utilities.data_masking import DataMasking

    mask = Mask(
        {
            "/ssn": MASKED("***-**-{last:4}"),
            "/card/pan": MASKED("{first:6}******{last:4}"),
            "/email": MASKED("{first:1}***@{domain}"),
        },
        default=PLAIN,
    )
    peer = DataMasking()
    text = json.dumps(DOCUMENT, separators=(",", ":"))
    fields = ["ssn", "card.pan", "email"]
    return [
        Figure(
            what=f"mask 3 fields of a {len(text)}-byte document",
            unit="us",
            ours=1e6 * seconds(lambda: mask.apply(DOCUMENT), 5000),
            peer="Powertools erase",
            theirs=1e6 * seconds(lambda: peer.erase(DOCUMENT, fields=fields), 100),
            budget=15,
            budget_ratio=50,
        ),
        Figure(
            what="the same, JSON text to JSON text",
            unit="us",
            ours=1e6 * seconds(lambda: mask.apply_text(text), 5000),
            peer="Powertools erase",
            theirs=1e6 * seconds(lambda: json.dumps(peer.erase(text, fields=fields)), 100),
        ),
    ]


def through_the_host() -> list[Figure]:
    """Sealed requests on loopback to a host in this process; client and host share its cores."""
    from cloister_host.testing import embedded_host

    unlimited = {"per_minute": 10**9, "per_day": 10**9}
    form = {"alphabet": "alphanumeric", "length": 16}
    documents: dict[str, dict[str, Any]] = {
        "ssn": {"plan": "ff1", "type": "ssn"},
        "vault": {"plan": "vault", **form},
        "lookup": {"plan": "vault", **form, "deterministic": True},
    }
    values = [f"{random.randrange(10**9):09}" for _ in range(BATCH)]
    with tempfile.TemporaryDirectory() as directory, embedded_host(Path(directory)) as host:
        tenant = host.tenant()
        for name, document in documents.items():
            tenant.admin.call("policy.create", {"policy": name, "limits": unlimited, **document})
        rights = [(action, "policy/*") for action in ("tokenize", "detokenize")]
        with tenant.client("app", rights) as client:
            tokens = client.tokenize("lookup", values)
            rows: list[tuple[str, Callable[[], object], int]] = [
                ("ff1", partial(client.tokenize, "ssn", values), 250_000),
                ("new vault tokens", partial(client.tokenize, "vault", values), 30_000),
                ("vault tokens back to values", partial(client.detokenize, "lookup", tokens), 100_000),
            ]
            return [
                Figure(
                    what=f"sealed, through the host: {what}",
                    unit="values/s",
                    ours=BATCH / seconds(work),
                    budget=budget,
                )
                for what, work, budget in rows
            ]


def show(figures: list[Figure]) -> None:
    print(f"{'what':58} {'ours':>12} {'peer':>12} {'ratio':>8}  budget")
    for figure in figures:
        theirs = "" if figure.theirs is None else f"{figure.theirs:,.1f}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:,.1f}x"
        verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
        print(f"{figure.what:58} {figure.ours:>12,.1f} {theirs:>12} {ratio:>8}  {verdict} {figure.unit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures = [*ff1(), *policies(), *masks(), *through_the_host()]
    show(figures)
    if arguments.json:
        report = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "figures": [{**asdict(figure), "ratio": figure.ratio, "met": figure.met} for figure in figures],
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
