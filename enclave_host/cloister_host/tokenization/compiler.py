"""From what a policy says to what is done, or to a refusal that shows its arithmetic.

The measure is the number of values that can really take the place of one another: what is preserved
and what Luhn fixes does not count. FF1 under a million can be undone by listing it (SP 800-38G
revision 1, section 5.1; Hoang, Tessaro, Trieu 2018), so it is refused, with the way out.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from cloister.errors import ConfigurationError
from cloister.mask import MASKED, REDACTED
from cloister_host.tokenization.ff1 import MIN_DOMAIN
from cloister_host.tokenization.formats import (
    ALPHABETS,
    DIGITS,
    ISSUABLE_SSNS,
    SPARE_SSNS,
    UPPER,
    DateFormat,
    EmailFormat,
    Format,
    IbanFormat,
    RunFormat,
    RunRules,
    TemplateFormat,
    ssn_format,
    uuid_format,
)
from cloister_host.tokenization.plans import Ff1Plan, HashPlan, Plan, RedactPlan, TokenForm, VaultPlan
from cloister_host.tokenization.policies import MAX_SYMBOLS, Limits, PlanName, PolicyDocument
from cloister_host.tokenization.shapes import Preserve, Shape
from cloister_host.tokenization.views import ViewTable

__all__ = ["CompiledPolicy", "compile_policy"]

_MIN_TOKENS: Final = MIN_DOMAIN  # vault tokens in all: fewer can be guessed, or run out
_MIN_TOKENS_EACH: Final = 10_000  # and for each way the kept symbols may read
_MIN_HASHES: Final = 1 << 80  # collisions show after 2**40 values
_HASH_FORM: Final = TokenForm(ALPHABETS["base64url"], 22)  # 132 bits
_OPAQUE_FORM: Final = TokenForm(ALPHABETS["alphanumeric"], 22)  # 130 bits
_PAN_DIGITS: Final = 16
_SERIAL_DIGITS: Final = 4  # of a social security number
_E164_DIGITS: Final = (8, 15)  # ITU-T E.164 allows 15; shorter than 8 is no subscriber's number
_IBAN_SYMBOLS: Final = (11, 30)  # of the account, from Norway's to the longest allowed
_EMAIL_SYMBOLS: Final = (4, 64)  # RFC 5321, section 4.5.3.1.1; under 4, 62**3 is too few

_PIN_LIMITS: Final = Limits(per_minute=60, per_day=1_000)

_OPTIONS: Final = {  # what else each type reads
    None: frozenset({"alphabet", "length"}),
    "text": frozenset({"alphabet", "length", "min_length", "max_length", "separators", "preserve"}),
    "template": frozenset({"template", "preserve"}),
    "ssn": frozenset({"preserve", "issuable_only", "never_issued_tokens"}),
    "pan": frozenset({"length", "min_length", "max_length", "preserve", "luhn"}),
    "pin": frozenset({"length", "min_length", "max_length"}),
    "phone": frozenset({"min_length", "max_length", "preserve"}),
    "email": frozenset({"min_length", "max_length", "preserve"}),
    "iban": frozenset({"min_length", "max_length", "preserve"}),
    "uuid": frozenset({"preserve"}),
    "date": frozenset({"first_year", "last_year"}),
}
_TYPE_OPTIONS: Final = frozenset().union(*_OPTIONS.values())
_PLAN_OPTIONS: Final[dict[PlanName, frozenset[str]]] = {
    "ff1": frozenset({"key", "tweak", "deterministic"}),
    "vault": frozenset({"key", "token", "deterministic", "ttl_seconds"}),
    "hash": frozenset({"key", "token", "deterministic"}),
    "redact": frozenset(),
}
_ANY_PLAN: Final = frozenset({"plan", "type", "mask", "views", "limits", "purposes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPolicy:
    """A policy that was found safe.

    Attributes:
        plan: What is done to values.
        views: Who is shown how much of them.
        domain: How many tokens the shortest value may have.
        arithmetic: The same as text, with the reckoning.
    """

    document: PolicyDocument
    plan: Plan
    views: ViewTable
    domain: int
    arithmetic: str

    @property
    def limits(self) -> Limits:
        """How much a principal may have detokenized."""
        return self.document.limits or (_PIN_LIMITS if self.document.type == "pin" else Limits())


def compile_policy(document: PolicyDocument) -> CompiledPolicy:
    """Compile a policy.

    Raises:
        ConfigurationError: It contradicts itself, or it is not safe. The message has the arithmetic,
            the hint the way out.
    """
    _check_options(document)
    views = ViewTable(document.views, document.mask)
    if document.plan == "redact":
        view = MASKED(document.mask) if document.mask else REDACTED
        return CompiledPolicy(
            document=document, plan=RedactPlan(view), views=views, domain=1, arithmetic="nothing comes back"
        )
    form = _token_form(document)
    values = _format(document)
    if document.plan == "hash":
        return _compile_hash(document, values, form or _HASH_FORM, views)
    if document.plan == "ff1":
        return _compile_ff1(document, values, views)
    return _compile_vault(document, values, form, views)


def _compile_ff1(document: PolicyDocument, values: Format | None, views: ViewTable) -> CompiledPolicy:
    if values is None:
        raise ConfigurationError(
            "ff1 needs a type", hint="say what the values are: type, or type text with an alphabet"
        )
    if document.deterministic is False:
        raise ConfigurationError("ff1 gives equal values equal tokens", hint="use plan vault")
    if isinstance(values, DateFormat):
        raise ConfigurationError(
            f"ff1 would encrypt a date: {values.days:,} days from {document.first_year or 1900} to "
            f"{document.last_year or 2099}, fewer than {MIN_DOMAIN:,}",
            hint="use plan vault",
        )
    if document.never_issued_tokens:
        raise ConfigurationError(
            f"ff1 cannot map {ISSUABLE_SSNS:,} issuable numbers one to one onto {SPARE_SSNS:,} never issued",
            hint="use plan vault, or leave never_issued_tokens out",
        )
    shape = values.smallest
    arithmetic = _arithmetic(shape)
    if shape.domain < MIN_DOMAIN:
        raise ConfigurationError(
            f"ff1 would encrypt {arithmetic}, fewer than {MIN_DOMAIN:,}",
            hint="use plan vault, or preserve fewer positions"
            + (", or leave luhn out" if document.luhn else ""),
        )
    return CompiledPolicy(
        document=document,
        plan=Ff1Plan(values, document.luhn),
        views=views,
        domain=shape.domain,
        arithmetic=arithmetic,
    )


def _compile_vault(
    document: PolicyDocument, values: Format | None, form: TokenForm | None, views: ViewTable
) -> CompiledPolicy:
    if form is None and (values is None or isinstance(values, DateFormat) or document.type == "pin"):
        form = _OPAQUE_FORM
    if form is not None:
        tokens, each = form.tokens, form.tokens
        arithmetic = f"{len(form.alphabet)}^{form.length} = {_number(tokens)} tokens"
    else:
        assert values is not None, "without a form, tokens have that of the values"
        shape = values.smallest
        each = shape.tokens
        kept = sum(run.stop - run.start for run in shape.kept)
        tokens = each * 10**kept
        arithmetic = f"{_number(each)} tokens" + (" for each reading of the kept symbols" if kept else "")
    if tokens < _MIN_TOKENS or each < _MIN_TOKENS_EACH:
        need = _MIN_TOKENS if tokens < _MIN_TOKENS else _MIN_TOKENS_EACH
        raise ConfigurationError(
            f"the vault would draw from {arithmetic}, fewer than {need:,}: they run out and can be guessed",
            hint="give tokens a longer form of their own (token {alphabet, length}), or preserve less",
        )
    plan = VaultPlan(
        format=values,
        form=form,
        luhn=document.luhn if form is None else None,
        deterministic=document.deterministic is True,
        ttl_seconds=document.ttl_seconds,
    )
    return CompiledPolicy(document=document, plan=plan, views=views, domain=each, arithmetic=arithmetic)


def _compile_hash(
    document: PolicyDocument, values: Format | None, form: TokenForm, views: ViewTable
) -> CompiledPolicy:
    if document.deterministic is False:
        raise ConfigurationError("hash gives equal values equal tokens", hint="use plan vault")
    arithmetic = f"{len(form.alphabet)}^{form.length} = {_number(form.tokens)} hashes"
    if form.tokens < _MIN_HASHES:
        raise ConfigurationError(
            f"the hash would have {arithmetic}, fewer than 2^80: different values would get equal tokens",
            hint=f"at least {math.ceil(80 / math.log2(len(form.alphabet)))} symbols of this alphabet",
        )
    return CompiledPolicy(
        document=document, plan=HashPlan(values, form), views=views, domain=form.tokens, arithmetic=arithmetic
    )


def _check_options(document: PolicyDocument) -> None:
    defaults = PolicyDocument(plan=document.plan)
    given = {
        name for name in document.__struct_fields__ if getattr(document, name) != getattr(defaults, name)
    }
    allowed = _ANY_PLAN | _PLAN_OPTIONS[document.plan] | _OPTIONS[document.type]
    if document.plan == "redact":
        allowed = _ANY_PLAN - {"type"}
    if extra := sorted(given - allowed):
        kind = f"type {document.type}" if document.type else "no type"
        raise ConfigurationError(
            f"a policy with plan {document.plan} and {kind} has no member {extra[0]}",
            hint=f"leave it out; this policy may have {', '.join(sorted(allowed))}",
        )
    if document.length and (document.min_length or document.max_length):
        raise ConfigurationError("give length, or min_length and max_length")
    if document.plan in {"hash", "redact"} and (document.views or document.purposes):
        raise ConfigurationError(
            f"nothing comes back from plan {document.plan}, so it has no views or purposes"
        )


def _token_form(document: PolicyDocument) -> TokenForm | None:
    if document.token is not None:
        return _form(document.token.alphabet, document.token.length)
    if document.type is None and document.alphabet is not None:
        if document.plan == "ff1":
            return None
        if document.length is None:
            raise ConfigurationError("tokens with an alphabet need a length")
        return _form(document.alphabet, document.length)
    return None


def _form(alphabet: str, length: int) -> TokenForm:
    symbols = _alphabet(alphabet)
    if not symbols.isprintable() or " " in symbols:
        raise ConfigurationError("the symbols of tokens are printable, and no space is among them")
    return TokenForm(symbols, length)


def _format(document: PolicyDocument) -> Format | None:
    preserve = Preserve(
        prefix=document.preserve.prefix,
        suffix=document.preserve.suffix,
        positions=frozenset(document.preserve.positions),
    )
    match document.type:
        case None:
            return None
        case "template":
            if document.template is None:
                raise ConfigurationError("type template needs a template, such as AA-9999")
            return TemplateFormat([document.template], preserve)
        case "ssn":
            kept = preserve.prefix or preserve.positions or preserve.suffix > _SERIAL_DIGITS
            if document.never_issued_tokens and kept:
                raise ConfigurationError(
                    "never-issued numbers differ in area and group, so these cannot be preserved",
                    hint="preserve a suffix of up to 4, or leave never_issued_tokens out",
                )
            return ssn_format(
                preserve,
                issuable_only=document.issuable_only,
                never_issued_tokens=document.never_issued_tokens,
            )
        case "uuid":
            return uuid_format(preserve)
        case "date":
            first, last = document.first_year or 1900, document.last_year or 2099
            if first > last:
                raise ConfigurationError("first_year comes after last_year")
            return DateFormat(first, last)
        case _:
            return _run_format(document, preserve)


def _run_format(document: PolicyDocument, preserve: Preserve) -> Format:
    match document.type:
        case "pan":
            rules = RunRules(alphabets=(DIGITS,), separators=" -", preserve=preserve, luhn=document.luhn)
            return RunFormat(_bounded(document, rules, usual=(_PAN_DIGITS, _PAN_DIGITS), possible=(13, 19)))
        case "pin":
            rules = RunRules(alphabets=(DIGITS,))
            return RunFormat(_bounded(document, rules, usual=(4, 12), possible=(4, 12)))
        case "phone":
            # The first digit stays, since no number begins with 0.
            kept = replace(preserve, prefix=max(preserve.prefix, 1))
            rules = RunRules(alphabets=(DIGITS,), prefix="+", preserve=kept)
            return RunFormat(_bounded(document, rules, usual=_E164_DIGITS, possible=(4, 15)))
        case "email":
            rules = RunRules(alphabets=(ALPHABETS["alphanumeric"],), separators="._+-", preserve=preserve)
            return EmailFormat(_bounded(document, rules, usual=_EMAIL_SYMBOLS, possible=(1, 64)))
        case "iban":
            rules = RunRules(alphabets=(DIGITS, UPPER), separators=" ", preserve=preserve)
            return IbanFormat(_bounded(document, rules, usual=_IBAN_SYMBOLS, possible=(8, 30)))
        case _:
            if document.alphabet is None:
                raise ConfigurationError("type text needs an alphabet")
            if document.plan == "ff1" and not (document.length or document.min_length):
                raise ConfigurationError("ff1 of type text needs a length or a min_length")
            separators = document.separators or ""
            if any(char.isalnum() for char in separators):
                raise ConfigurationError("separators are neither letters nor digits")
            rules = RunRules(
                alphabets=(_alphabet(document.alphabet),), separators=separators, preserve=preserve
            )
            return RunFormat(_bounded(document, rules, usual=(1, MAX_SYMBOLS), possible=(1, MAX_SYMBOLS)))


def _bounded(
    document: PolicyDocument, rules: RunRules, *, usual: tuple[int, int], possible: tuple[int, int]
) -> RunRules:
    """Add the lengths of the policy, or the usual ones of its type."""
    shortest = document.length or document.min_length or min(usual[0], document.max_length or usual[0])
    longest = document.length or document.max_length or max(usual[1], shortest)
    if not possible[0] <= shortest <= longest <= possible[1]:
        raise ConfigurationError(
            f"type {document.type} has {possible[0]} to {possible[1]} symbols",
            hint="and min_length is not above max_length",
        )
    return replace(rules, min_length=shortest, max_length=longest)


def _alphabet(text: str) -> str:
    symbols = ALPHABETS.get(text, text)
    if len(symbols) < 2 or len(set(symbols)) != len(symbols):  # noqa: PLR2004 - one symbol says nothing
        raise ConfigurationError(
            "an alphabet has 2 to 65536 different symbols", hint=f"or the name of one: {', '.join(ALPHABETS)}"
        )
    if any("\ud800" <= symbol <= "\udfff" for symbol in symbols):
        raise ConfigurationError("an alphabet cannot contain surrogates")
    return symbols


def _arithmetic(shape: Shape) -> str:
    """Such as `5 of 9 symbols: 10^5 = 100,000 values`."""
    count = sum(run.stop - run.start for run in shape.symbols)
    powers = " x ".join(f"{size}^{times}" for size, times in Counter(map(len, shape.alphabets)).items())
    luhn = " (Luhn fixes one more)" if shape.check is not None else ""
    what = f"{len(shape.alphabets)} of {count} symbols{luhn}"
    return f"{what}: {powers or '10^0'} = {_number(shape.domain)} values"


def _number(number: int) -> str:
    return f"{number:,}" if number < 10**12 else f"about 10^{math.floor(math.log10(number))}"
