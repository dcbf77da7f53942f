"""Who may deploy, who wrote a value, and wheels in the sandbox."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloister import jose
from cloister.envelope import authored, seal_to
from cloister.errors import ConfigurationError, DeniedError, FunctionError, OpenError, QuorumNeededError
from cloister.function.bundle import BUNDLE_CONTEXT, Bundle, build_bundle
from cloister.function.signing import sign_bundle
from cloister_host.functions.sandbox import Sandbox
from cloister_host.functions.sandbox.namespaces import NamespaceSandbox
from cloister_host.functions.sandbox.process import ProcessSandbox
from support import require
from support.claims import claims_of
from support.wheels import lock_line, native_wheel
from support.workbench import TENANT, Workbench

SOURCE = """
from cloister.function import boolean, function

@function("yes", output=boolean())
def yes() -> bool:
    return True
"""

AUTHORED = """
from typing import Annotated
from cloister.function import function, number, sealed

@function("dose", output=number(minimum=0, maximum=100, step=1))
def dose(
    amount: Annotated[int, sealed("doses", context=["patient"], sealed_by=["clinic", "surgery"])]
) -> int:
    return amount
"""

CI = jose.generate_key("EdDSA", kid="ci")
CLINIC = jose.generate_key("ES256", kid="clinic")
OTHER = jose.generate_key("EdDSA", kid="ci")


def add(bench: Workbench, key: jose.Key, use: str) -> None:
    bench.call("signer.add", {"signer": key.kid, "use": use, "jwk": jose.public_jwk(key)})


def deploy(bench: Workbench, bundle: Bundle, **payload: Any) -> Any:
    return bench.call("function.deploy", {"bundle": jose.b64url_encode(bundle.data), **payload})


@pytest.fixture
def bundle(bench: Workbench) -> Bundle:
    return build_bundle(bench.write(SOURCE))


def signature(bundle: Bundle, key: jose.Key = CI, **change: str) -> str:
    about = {"digest": bundle.digest, "function": "yes", "tenant": TENANT, **change}
    digest = about.pop("digest")
    return sign_bundle(digest, function=about["function"], tenant=about["tenant"], key=key)


# --- deployers --------------------------------------------------------------------------------------


def test_a_signed_bundle_is_deployed_and_its_signer_named(bench: Workbench, bundle: Bundle) -> None:
    add(bench, CI, "deployer")
    assert deploy(bench, bundle, signature=signature(bundle))["signed_by"] == "ci"
    assert bench.call("function.list", {})["functions"][0]["versions"][0]["signed_by"] == "ci"


def test_who_may_sign_and_whether_one_must_are_under_quorum(bench: Workbench) -> None:
    add(bench, CLINIC, "author")
    for name in ("ann", "bob"):
        bench.call("principal.create", {"principal": name, "kind": "person"})
        bench.grant(name, "approve", "act/*")
    bench.call("quorum.set", {"act": "policy.change", "approvals": 1})
    bench.call("function.rules", {"signed_only": True})
    with pytest.raises(QuorumNeededError):
        bench.call("function.rules", {"signed_only": False})
    with pytest.raises(QuorumNeededError) as waiting:
        add(bench, CI, "deployer")
    proposal = {"proposal": waiting.value.proposal_id}
    bench.call("proposal.approve", proposal, caller=bench.caller("ann"))
    add(bench, CI, "deployer")


def test_a_tenant_can_demand_signatures(bench: Workbench, bundle: Bundle) -> None:
    add(bench, CI, "deployer")
    bench.call("function.rules", {"signed_only": True})
    with pytest.raises(DeniedError, match="signed bundles only"):
        deploy(bench, bundle)
    assert deploy(bench, bundle, signature=signature(bundle))["digest"] == bundle.digest
    bench.call("function.rules", {"signed_only": False})
    assert deploy(bench, build_bundle(bench.write(SOURCE + "# new\n")))["signed_by"] == ""


@pytest.mark.parametrize(
    ("key", "change"),
    [
        (CI, {"digest": "0" * 64}),
        (CI, {"function": "no"}),
        (CI, {"tenant": "globex"}),
        (OTHER, {}),
        (CLINIC, {}),
        (jose.generate_key("EdDSA", kid="unknown"), {}),
    ],
    ids=["another-digest", "another-function", "another-tenant", "another-key", "an-author", "unregistered"],
)
def test_a_signature_that_is_not_for_this_deployment_is_refused(
    bench: Workbench, bundle: Bundle, key: jose.Key, change: dict[str, str]
) -> None:
    add(bench, CI, "deployer")
    add(bench, CLINIC, "author")
    with pytest.raises(DeniedError, match="not a registered deployer's"):
        deploy(bench, bundle, signature=signature(bundle, key, **change))
    assert bench.call("function.list", {})["functions"] == []


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "ä.b.c"])
def test_a_signature_that_is_none_is_refused(bench: Workbench, bundle: Bundle, text: str) -> None:
    with pytest.raises(DeniedError):
        deploy(bench, bundle, signature=text)


def test_a_removed_signer_deploys_no_more(bench: Workbench, bundle: Bundle) -> None:
    add(bench, CI, "deployer")
    bench.call("signer.remove", {"signer": "ci"})
    assert bench.call("signer.list", {})["signers"] == []
    with pytest.raises(DeniedError):
        deploy(bench, bundle, signature=signature(bundle))


def test_only_public_signature_keys_are_registered_each_name_once(bench: Workbench) -> None:
    add(bench, CI, "deployer")
    for jwk in (
        CLINIC.to_jwk(),
        jose.public_jwk(jose.generate_key("HPKE-10-KE", kid="clinic")),
        {"kty": "OKP"},
    ):
        with pytest.raises(ConfigurationError):
            bench.call("signer.add", {"signer": "clinic", "use": "author", "jwk": jwk})
    with pytest.raises(ConfigurationError, match="exists already"):
        add(bench, OTHER, "deployer")


@pytest.mark.parametrize(
    ("op", "payload"),
    [
        ("signer.add", {"signer": "ci", "use": "deployer", "jwk": jose.public_jwk(CI)}),
        ("signer.remove", {"signer": "ci"}),
        ("signer.list", {}),
        ("function.rules", {"signed_only": False}),
    ],
)
def test_managing_signers_is_a_right(bench: Workbench, op: str, payload: dict[str, Any]) -> None:
    with pytest.raises(DeniedError):
        bench.call(op, payload, caller=bench.caller("lambda", "faas"))


# --- sealed bundles ---------------------------------------------------------------------------------


@pytest.fixture
def code_key(bench: Workbench) -> dict[str, Any]:
    bench.key("code", "seal-public")
    statement = bench.call("key.public", {"key": "code"})["statement"]
    payload: dict[str, Any] = json.loads(jose.b64url_decode(statement.split(".")[1]))
    return payload


def test_a_bundle_sealed_to_the_tenant_is_opened_by_the_host_only(
    bench: Workbench, bundle: Bundle, code_key: dict[str, Any]
) -> None:
    add(bench, CI, "deployer")
    sealed = seal_to(bundle.data, code_key["jwk"], kid=code_key["kid"], context=BUNDLE_CONTEXT)
    assert b"return True" not in sealed.encode()
    deployed = bench.call(
        "function.deploy", {"sealed": str(sealed), "signature": signature(bundle), "alias": "prod"}
    )
    assert (deployed["digest"], deployed["signed_by"]) == (bundle.digest, "ci")
    bench.grant("lambda", "invoke", "function/yes")
    assert bench.invoke("yes@prod", inputs={})["value"] is True


def test_other_sealed_values_do_not_pass_for_bundles(
    bench: Workbench, bundle: Bundle, code_key: dict[str, Any]
) -> None:
    bench.key("ssn")
    unbound = seal_to(bundle.data, code_key["jwk"], kid=code_key["kid"])
    refusals = set()
    for sealed in (unbound, bench.seal("ssn", "078-05-1120", **BUNDLE_CONTEXT), bench.seal("ssn", "x"), "x"):
        with pytest.raises(ConfigurationError) as refused:
            bench.call("function.deploy", {"sealed": str(sealed)})
        refusals.add(str(refused.value))
    # Deploying tells nothing about what a value holds.
    assert len(refusals) == 1
    for both in ({}, {"sealed": str(unbound), "bundle": jose.b64url_encode(bundle.data)}):
        with pytest.raises(ConfigurationError):
            bench.call("function.deploy", both)


# --- authors ----------------------------------------------------------------------------------------


@pytest.fixture
def dose(bench: Workbench) -> Workbench:
    bench.key("doses")
    bench.deploy(AUTHORED)
    add(bench, CLINIC, "author")
    return bench


def give(bench: Workbench, text: Any, patient: str = "ann") -> Any:
    sealed = bench.seal("doses", text, patient=patient)
    return bench.invoke("dose@prod", inputs={"amount": sealed}, context={"patient": patient})


def written(value: Any = 50, signer: jose.Key = CLINIC, **change: Any) -> str:
    about = {"tenant": TENANT, "key": "doses", "context": {"patient": "ann"}, **change}
    return authored(value, signer=signer, **about)


def test_what_a_registered_author_wrote_is_accepted(dose: Workbench) -> None:
    result = give(dose, written())
    assert result["value"] == 50
    assert claims_of(result)["kids"] == ["doses.1"]


@pytest.mark.parametrize(
    "text",
    [
        50,
        "50",
        written(signer=jose.generate_key("ES256", kid="clinic")),
        written(signer=jose.generate_key("EdDSA", kid="ci")),
        written(context={"patient": "bob"}),
        written(context=None),
        written(key="other"),
        written(tenant="globex"),
        written() + "x",
    ],
    ids=["unsigned", "text", "anothers-key", "another-signer", "another-patient", "unbound", "another-key",
         "another-tenant", "damaged"],
)  # fmt: skip
def test_what_no_author_wrote_for_this_place_does_not_open(dose: Workbench, text: Any) -> None:
    with pytest.raises(OpenError):
        give(dose, text)


def test_a_deployers_key_writes_no_values(dose: Workbench) -> None:
    dose.call("signer.remove", {"signer": "clinic"})
    add(dose, CLINIC, "deployer")
    with pytest.raises(OpenError):
        give(dose, written())


def test_the_value_has_still_to_be_of_its_type(dose: Workbench) -> None:
    with pytest.raises(FunctionError, match="amount is not of its declared type"):
        give(dose, written("fifty"))


# --- wheels in the sandbox --------------------------------------------------------------------------


@pytest.fixture(params=[ProcessSandbox, NamespaceSandbox], ids=["process", "namespaces"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    try:
        sandbox: Sandbox = request.param()
    except ConfigurationError as error:
        require.missing("the namespaces sandbox", install=str(error))
    workbench = Workbench(tmp_path, sandbox=sandbox)
    yield workbench
    workbench.close()


def test_a_wheel_with_native_code_runs_in_the_sandbox(anywhere: Workbench) -> None:
    name, wheel = native_wheel()
    folder = anywhere.write(
        """
import os
import markupsafe
import markupsafe._speedups
from cloister.function import function, text

@function("escapes", output=text(max_chars=99))
def escapes(value: str) -> str:
    place = markupsafe._speedups.__file__
    return f"{markupsafe.escape(value)} {'/site-packages/' in place} {os.access(place, os.W_OK)}"
"""
    )
    (folder / "requirements.lock").write_text(lock_line("MarkupSafe", wheel, version="3.0.4"))
    (folder / "wheels").mkdir()
    (folder / "wheels" / name).write_bytes(wheel)
    bundle = build_bundle(folder, python="3.11")
    deploy(anywhere, bundle, alias="prod")
    anywhere.grant("lambda", "invoke", "function/escapes")
    result = anywhere.invoke("escapes@prod", inputs={"value": "<b>"})
    escaped, inside, writable = str(result["value"]).split()
    assert (escaped, inside) == ("&lt;b&gt;", "True")
    # As root the level `process` could write anywhere.
    assert writable == "False" or anywhere.parts.pool.sandbox.level == "process"
    listed = anywhere.call("function.list", {})["functions"][0]["versions"][0]
    assert listed["digest"] == bundle.digest
