from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import ConfigurationError
from cloister_host.store.canonical import canonical, utf8

text = st.text(st.characters(exclude_categories=["Cs"]))
leaves = text | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.none()
names = st.text(st.characters(max_codepoint=127))
records: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20
)


@given(records)
def test_our_records_are_encoded_as_rfc_8785_says(record: Any) -> None:
    assert canonical(record) == rfc8785.dumps(record)


@given(st.text())
def test_text_becomes_utf8_or_a_typed_error(value: str) -> None:
    try:
        encoded = utf8(value)
    except ConfigurationError:
        assert any("\ud800" <= character <= "\udfff" for character in value)
    else:
        assert encoded.decode() == value


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        utf8("a\ud800b")
