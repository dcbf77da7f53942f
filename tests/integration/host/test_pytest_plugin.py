"""The pytest plugin for users' own tests."""

from __future__ import annotations

FUNCTION = """
from typing import Annotated
from cloister.function import boolean, function, sealed

@function("is-adult", output=boolean())
def is_adult(age: Annotated[int, sealed("ages")]) -> bool:
    return age >= 18
"""


def test_the_fixtures_give_a_tenant_of_a_real_host(cloister_tenant, tmp_path):
    (tmp_path / "is_adult.py").write_text(FUNCTION)
    cloister_tenant.admin.call("key.create", {"key": "ages", "purpose": "seal"})
    cloister_tenant.deploy(tmp_path)
    rights = [("seal", "key/ages"), ("invoke", "function/is-adult")]
    with cloister_tenant.client("web", rights) as client:
        assert client.invoke("is-adult@prod", age=client.seal(22, key="ages")).value is True
        assert client.invoke("is-adult@prod", age=client.seal(12, key="ages")).value is False


def test_every_test_has_a_tenant_of_its_own(cloister_tenant):
    assert cloister_tenant.admin.call("key.list", {})["keys"] == []
