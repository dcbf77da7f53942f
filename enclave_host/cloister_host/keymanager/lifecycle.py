"""The life of a key version: states, transitions and what each allows (NIST SP 800-57 part 1, section 7).

    pre_activation ──► active ◄──► suspended
          │              │ └──────► deactivated ◄── suspended
          │              │               │
          └──────────────┴──► compromised ◄── from any of these
                                  │
                                  └──► destroyed, from every state

Pure: times are epoch seconds and arguments. A version whose activation, deactivation or end of the
waiting period has passed is in its new state at once, whether or not anybody has written that down yet.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec
from msgspec.structs import replace

from cloister.errors import ConfigurationError

__all__ = ["STATES", "TRANSITIONS", "IllegalTransitionError", "Life", "State"]

State = Literal["pre_activation", "active", "suspended", "deactivated", "compromised", "destroyed"]

STATES: Final[tuple[State, ...]] = get_args(State)
TRANSITIONS: Final[dict[State, frozenset[State]]] = {  # the numbers of section 7
    "pre_activation": frozenset({"destroyed", "compromised", "active"}),  # 2, 3, 4
    "active": frozenset({"destroyed", "compromised", "suspended", "deactivated"}),  # 5, 6, 7, 8
    "suspended": frozenset({"destroyed", "active", "compromised", "deactivated"}),  # 9, 10, 11, 12
    "deactivated": frozenset({"compromised", "destroyed"}),  # 13, 14
    "compromised": frozenset({"destroyed"}),  # 15
    "destroyed": frozenset(),
}
# Here the recipient "must accept the risk in doing so" (sections 7.3 and 7.5), which somebody has to say.
_RISKY: Final[frozenset[State]] = frozenset({"suspended", "compromised"})
_LIVE: Final[frozenset[State]] = frozenset({"active", "suspended"})


class IllegalTransitionError(ConfigurationError):
    """A key version cannot go from its state to the one that was asked for."""


class Life(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a key version stands in its life.

    Attributes:
        state: As it was last written down; `state_at` tells what it is.
        activate_at: When it becomes active by itself; None waits for somebody.
        deactivate_at: End of its originator-usage period: when it stops protecting, or stopped.
        recipient_seconds: How long after that it still processes; None has no end.
        destroy_at: End of the waiting period before its destruction; until then there is a way back.
        processing_accepted: Whether the risk of processing with a suspended or compromised version was
            accepted by name.
    """

    state: State
    activate_at: int | None = None
    deactivate_at: int | None = None
    recipient_seconds: int | None = None
    destroy_at: int | None = None
    processing_accepted: bool = False

    @classmethod
    def begin(
        cls,
        *,
        now: int,
        activate_at: int | None = None,
        active_seconds: int | None = None,
        recipient_seconds: int | None = None,
    ) -> Life:
        """The life of a new version: active now, or before its activation.

        Args:
            now: The time.
            activate_at: When it becomes active, if not now.
            active_seconds: Its originator-usage period.
            recipient_seconds: Its recipient-usage period after that.
        """
        start = now if activate_at is None else max(now, activate_at)
        return cls(
            state="active" if start == now else "pre_activation",
            activate_at=start,
            deactivate_at=None if active_seconds is None else start + active_seconds,
            recipient_seconds=recipient_seconds,
        )

    def state_at(self, now: int) -> State:
        """The state at a time, whatever was last written down."""
        if self.destroy_at is not None and now >= self.destroy_at:
            return "destroyed"
        state = self.state
        if state == "pre_activation" and self.activate_at is not None and now >= self.activate_at:
            state = "active"
        if state in _LIVE and self.deactivate_at is not None and now >= self.deactivate_at:
            state = "deactivated"
        return state

    def settled(self, now: int) -> Life:
        """This life with what time has done to it written down."""
        return replace(self, state=self.state_at(now))

    def is_waiting(self, now: int) -> bool:
        """Whether it waits for its destruction."""
        return self.destroy_at is not None and now < self.destroy_at and self.state != "destroyed"

    # --- what it may be used for ---------------------------------------------------------------------

    def protects(self, now: int) -> bool:
        """Whether it may apply protection: seal, wrap, encrypt, MAC, sign, tokenize."""
        return self.state_at(now) == "active" and self.destroy_at is None

    def processes(self, now: int) -> bool:
        """Whether it may process what is protected: open, unwrap, decrypt, verify, detokenize."""
        if self.destroy_at is not None:
            return False
        match self.state_at(now):
            case "active":
                return True
            case "deactivated":
                return not self._is_past_recipients(now)
            case "suspended" | "compromised":
                return self.processing_accepted
            case _:
                return False

    def rescues(self, now: int) -> bool:
        """Whether what it protects may be moved to another version without anybody seeing it."""
        state = self.state_at(now)
        return self.destroy_at is None and (self.processes(now) or state == "compromised")

    def _is_past_recipients(self, now: int) -> bool:
        if self.recipient_seconds is None or self.deactivate_at is None:
            return False
        return now >= self.deactivate_at + self.recipient_seconds

    # --- what may become of it -----------------------------------------------------------------------

    def moved(self, to: State, *, now: int, accept_processing: bool = False) -> Life:
        """Go to another state.

        Args:
            to: Any state but `destroyed`, which has a waiting period (`doomed`).
            now: The time.
            accept_processing: Accept the risk of processing with a suspended or compromised version.

        Raises:
            IllegalTransitionError: SP 800-57 knows no such transition, or it waits for its destruction.
        """
        state = self.state_at(now)
        if to == "destroyed" or self.is_waiting(now):
            raise _illegal(state, to, waiting=self.is_waiting(now))
        # Whoever accepts the risk later, or takes that back, stays in the state.
        if to not in TRANSITIONS[state] and not (to == state and to in _RISKY):
            raise _illegal(state, to)
        if accept_processing and to not in _RISKY:
            raise ConfigurationError(
                "processing is accepted for suspended and compromised versions",
                hint="an active or deactivated version processes anyway",
            )
        life = replace(self, state=to, processing_accepted=accept_processing)
        if to == "active":
            return replace(life, activate_at=now if state == "pre_activation" else self.activate_at)
        return replace(life, deactivate_at=now) if to == "deactivated" else life

    def doomed(self, *, now: int, wait_seconds: int) -> Life:
        """Begin the waiting period before destruction; from now on it does nothing.

        Raises:
            IllegalTransitionError: It is destroyed, or waits already.
        """
        state = self.state_at(now)
        if state == "destroyed" or self.destroy_at is not None:
            raise _illegal(state, "destroyed", waiting=self.is_waiting(now))
        return replace(self, state=state, destroy_at=now + wait_seconds)

    def spared(self, *, now: int) -> Life:
        """Come back from the waiting period into the state before it.

        Raises:
            IllegalTransitionError: There is no waiting period, or it is over.
        """
        if not self.is_waiting(now):
            raise IllegalTransitionError(
                f"a {self.state_at(now)} version is not waiting for its destruction",
                hint="there is a way back until the waiting period ends, and none after it",
            )
        return replace(self, destroy_at=None)

    def rescheduled(
        self, *, now: int, activate_at: int | None = None, deactivate_at: int | None = None
    ) -> Life:
        """Change when it becomes active, or ends being so; None leaves that as it is.

        Raises:
            IllegalTransitionError: That moment of its life is over.
            ConfigurationError: The times are in the past, or the wrong way round.
        """
        state = self.state_at(now)
        if self.destroy_at is not None:
            raise _illegal(state, state, waiting=True)
        if activate_at is not None and state != "pre_activation":
            raise IllegalTransitionError(f"a {state} version has been activated already")
        if deactivate_at is not None and state not in {"pre_activation", *_LIVE}:
            raise IllegalTransitionError(f"a {state} version stops protecting no more: it has stopped")
        life = replace(
            self,
            state=state,
            activate_at=self.activate_at if activate_at is None else activate_at,
            deactivate_at=self.deactivate_at if deactivate_at is None else deactivate_at,
        )
        times = [time for time in (activate_at, deactivate_at) if time is not None]
        if any(time <= now for time in times):
            raise ConfigurationError("the time is not in the future", hint="use key.state to act now")
        if None not in {life.activate_at, life.deactivate_at} and life.activate_at >= life.deactivate_at:  # type: ignore[operator]
            raise ConfigurationError("a version is activated before it is deactivated")
        return life


def _illegal(state: State, to: State, *, waiting: bool = False) -> IllegalTransitionError:
    if waiting:
        return IllegalTransitionError(
            f"a {state} version that waits for its destruction does nothing else",
            hint="restore it first, with key.restore",
        )
    ways = sorted(TRANSITIONS[state] - {"destroyed"})
    hint = f"from here: {', '.join(ways)}" if ways else "there is no way on from here"
    if to == "destroyed" and state != "destroyed":
        hint = "use key.destroy, which has a waiting period"
    return IllegalTransitionError(f"a {state} version cannot become {to}", hint=hint)
