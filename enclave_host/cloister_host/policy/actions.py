"""Every action there is, what it is done to, and who can never do it.

A resource is `*`, `<noun>/*` or `<noun>/<name>`. Grants name actions exactly: there is no action that
stands for others.
"""

from __future__ import annotations

import re
from typing import Final

from cloister.errors import ConfigurationError
from cloister_host.identity.caller import SYSTEM_TENANT, Subject
from cloister_host.policy.acts import ACTS
from cloister_host.policy.roles import ROLE_PREFIX, ROLES

__all__ = ["ACTIONS", "check_action", "check_grantable", "forbidden_to", "matching_resources"]

ACTIONS: Final = {
    "tenant.manage": "tenant",
    "holder.manage": "holder",
    "backup.create": "backup",
    "backup.manage": "backup",
    "principal.manage": "principal",
    "grant.manage": "principal",
    "group.manage": "group",
    "key.manage": "key",
    "key.read": "key",
    "key.destroy": "key",
    "key.import": "key",
    "key.export": "key",
    "seal": "key",
    "wrap": "key",
    "unwrap": "key",
    "encrypt": "key",
    "decrypt": "key",
    "rewrap": "key",
    "mac": "key",
    "sign": "key",
    "verify": "key",
    "random": "random",
    "use-in-function": "key",
    "policy.manage": "policy",
    "tokenize": "policy",
    "detokenize": "policy",
    "detokenize-masked": "policy",
    "retokenize": "policy",
    "secret.manage": "secret",
    "secret.read": "secret",
    "use-secret": "secret",
    "function.deploy": "function",
    "function.manage": "function",
    "function.debug": "function",
    "function.logs": "function",
    "invoke": "function",
    "job.manage": "job",
    "signer.manage": "signer",
    "egress": "origin",
    "deliver": "origin",
    "delivery.manage": "delivery",
    "audit.read": "audit",
    "issuer.manage": "issuer",
    "quorum.manage": "act",
    "approve": "act",
}

# What would show a FaaS function plaintext, or let it give itself that right: through somebody else, with
# a key that it knows because it brought it, or because it took it away, with a policy of its own that
# masks nothing, or in the text of failures.
_NEVER_FAAS: Final = frozenset(
    {
        "decrypt",
        "unwrap",
        "detokenize",
        "key.import",
        "key.export",
        "secret.read",
        "principal.manage",
        "grant.manage",
        "group.manage",
        "tenant.manage",
        "holder.manage",
        "backup.create",
        "backup.manage",
        "issuer.manage",
        "quorum.manage",
        "approve",
        "policy.manage",
        "function.debug",
    }
)
# A confidential function works on declared inputs and outputs, and on nothing else.
_FUNCTION_ONLY: Final = frozenset({"use-in-function", "egress", "deliver", "use-secret"})
_FUNCTION: Final = _FUNCTION_ONLY | {"seal", "tokenize", "retokenize", "detokenize", "detokenize-masked"}

# What concerns every tenant.
_OPERATORS: Final = frozenset({"tenant.manage", "backup.create", "backup.manage"})

_NAME: Final = r"[a-z][a-z0-9-]{0,62}"
_RESOURCES: Final = {
    "origin": re.compile(r"https?://(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?"),
    "principal": re.compile(rf"(?:group:)?{_NAME}|function:[A-Za-z0-9_-]{{1,128}}"),
    "act": re.compile("|".join(map(re.escape, ACTS))),
    "delivery": re.compile(r"[A-Za-z0-9_-]{1,128}"),
    "job": re.compile(r"[A-Za-z0-9_-]{1,128}"),
    "backup": re.compile(r"[A-Za-z0-9_-]{1,128}"),
}
_PLAIN: Final = re.compile(_NAME)


def check_action(action: str) -> None:
    """Refuse an action that does not exist.

    Raises:
        ConfigurationError: There is no such action.
    """
    if action not in ACTIONS:
        raise ConfigurationError("there is no such action", hint=f"one of {', '.join(sorted(ACTIONS))}")


def check_grantable(action: str, resource: str, *, tenant: str, kind: Subject | None) -> None:
    """Refuse a grant that could never be meant.

    Args:
        action: One action, or `role:<name>`.
        resource: What it is granted on.
        tenant: Where.
        kind: Whom it is granted to; None for a group, whose members are looked at when they act.

    Raises:
        ConfigurationError: The action, the role or the form of the resource does not exist.
    """
    actions = _actions(action)
    if tenant != SYSTEM_TENANT and action in _OPERATORS:
        raise ConfigurationError(f"{action} is granted in the tenant {SYSTEM_TENANT}")
    if resource != "*":
        noun, _, name = resource.partition("/")
        nouns = sorted({ACTIONS[one] for one in actions})
        if noun not in nouns or not (name == "*" or _RESOURCES.get(noun, _PLAIN).fullmatch(name)):
            raise ConfigurationError(
                f"{action} is granted on *, or on a name or /* of {', '.join(nouns)}",
                hint="for example key/ssn; names are lower-case letters, digits and hyphens",
            )
    if kind is not None and any(forbidden_to(kind, one) for one in actions):
        raise ConfigurationError(f"the action {action} is never granted to this kind of principal: {kind}")


def _actions(named: str) -> tuple[str, ...]:
    """The actions that a grant names: one, or those of a role."""
    if named.startswith(ROLE_PREFIX):
        role = ROLES.get(named.removeprefix(ROLE_PREFIX))
        if role is None:
            raise ConfigurationError("there is no such role", hint=f"one of {', '.join(ROLES)}")
        return role
    check_action(named)
    return (named,)


def forbidden_to(kind: Subject, action: str) -> bool:
    """Whether no grant can let this kind of principal do this (PROTOCOL 2)."""
    match kind:
        case "function":
            return action not in _FUNCTION
        case "faas":
            return action in _NEVER_FAAS or action in _FUNCTION_ONLY
        case "person" | "service":
            return action in _FUNCTION_ONLY


def matching_resources(resource: str) -> tuple[str, ...]:
    """The resources a grant may name to cover this one."""
    noun, slash, _ = resource.partition("/")
    return (resource, f"{noun}/*", "*") if slash else (resource, "*")
