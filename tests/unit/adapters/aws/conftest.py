from __future__ import annotations

import pytest

from cloister.envelope import Sealed, seal_to
from cloister.jose import generate_key
from support.invokers import RecordedInvoker


@pytest.fixture
def invoker() -> RecordedInvoker:
    return RecordedInvoker()


@pytest.fixture(scope="session")
def sealed() -> Sealed:
    return seal_to("a history", generate_key("HPKE-7-KE").public(), kid="credit-histories.1")
