"""Values that JavaScript seals with public packages open in the host, and the other way round."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from cloister.envelope import open_with, seal_to
from cloister.errors import OpenError
from cloister_host.embedded import embedded_host
from support import require
from support.documents import run_blocks

ROOT = require.install.ROOT
FOLDER = require.install.JAVASCRIPT
VECTORS = json.loads((ROOT / "tests" / "vectors" / "envelope" / "values.json").read_text())["hpke"]


def node(script, /, **given):
    """Run a script that sees `given` and `sealed.js`; gives what it returned, or its error."""
    folder = require.javascript()
    program = f"""
        import {{ open, seal, verifyPublicKey }} from {json.dumps(str(folder / "sealed.js"))};
        const given = JSON.parse(await new Response(process.stdin).text());
        const shown = (value) => value instanceof Uint8Array ? [...value] : value;
        try {{ console.log(JSON.stringify({{ result: shown(await (async () => {{ {script} }})()) }})); }}
        catch (error) {{ console.log(JSON.stringify({{ error: error.message }})); }}
    """
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_javascript_opens_the_vectors_and_python_what_javascript_seals(vector):
    context = vector["context"]
    answer = node(
        """
        const { jwk, sealed, context } = given;
        const opened = await open(sealed, jwk, context ?? undefined);
        const others = context ? undefined : {};
        const refused = await open(sealed, jwk, others).then(() => "opened", (error) => error.message);
        return { opened: opened instanceof Uint8Array ? [...opened] : opened, refused,
                 again: await seal(opened, { ...jwk, priv: undefined, d: undefined }, context ?? undefined) };
        """,
        jwk=vector["jwk"],
        sealed=vector["sealed"],
        context=context,
    )["result"]
    assert answer["refused"] == "the value is bound to another context"
    value = open_with(vector["sealed"], vector["jwk"], context)
    assert answer["opened"] == (list(value) if isinstance(value, bytes) else value)
    assert open_with(answer["again"], vector["jwk"], context) == value


def test_values_and_contexts_mean_the_same_in_both_languages():
    jwk = VECTORS[0]["jwk"]
    public = {name: member for name, member in jwk.items() if name != "priv"}
    values = ["", "ü\U0001f600", {"b": [1, None, True], "a": "x"}, 7, None]
    # Names in another order by code point (JavaScript's and RFC 8785's is by UTF-16 unit), and like numbers.
    contexts = [None, {}, {"b": "1", "a": '"\\ü', "1": "\U0001f600", "\ufb00": "", "\U0001d4b3": "x"}]
    cases = [(value, context) for value in values for context in contexts]
    answer = node(
        """
        return Promise.all(given.cases.map(async ([sealed, context]) =>
          seal(await open(sealed, given.jwk, context ?? undefined), given.jwk, context ?? undefined)));
        """,
        jwk=jwk,
        cases=[
            (seal_to(value, public, kid=jwk["kid"], context=context), context) for value, context in cases
        ],
    )
    for again, (value, context) in zip(answer["result"], cases, strict=True):
        assert open_with(again, jwk, context) == value
        with pytest.raises(OpenError):
            open_with(again, jwk, {"another": "context"})


def test_a_changed_value_does_not_open():
    vector = VECTORS[0]
    parts = vector["sealed"].split(".")
    changed = [[*parts] for _ in parts]
    for place, copy in enumerate(changed):
        copy[place] = copy[place][:10] + ("B" if copy[place][10] == "A" else "A") + copy[place][11:]
    answer = node(
        """
        return Promise.all(given.sealed.map((sealed) =>
          open(sealed, given.jwk, given.context).then(() => "opened", () => "refused")));
        """,
        sealed=[vector["sealed"], *map(".".join, changed)],
        jwk=vector["jwk"],
        context=vector["context"],
    )
    assert answer["result"] == ["opened", *["refused"] * 5]


@pytest.fixture(scope="module")
def tenant(tmp_path_factory):
    with embedded_host(tmp_path_factory.mktemp("host")) as host:
        tenant = host.tenant("acme")
        tenant.admin.call("grant.create", {"principal": "admin", "action": "decrypt", "resource": "key/*"})
        yield tenant
        tenant.admin.close()


@pytest.fixture(scope="module")
def statement(tenant):
    tenant.admin.call("key.create", {"key": "forms", "purpose": "seal-public"})
    tenant.admin.call("key.create", {"key": "stamp", "purpose": "sign", "alg": "EdDSA"})
    return {name: tenant.admin.call("key.public", {"key": name})["statement"] for name in ("forms", "stamp")}


def test_only_a_statement_of_the_pinned_deployment_about_this_tenant_is_believed(tenant, statement):
    deployment = tenant.admin.attest().keyset.deployment
    header, payload, signature = statement["forms"].split(".")
    forged = f"{header}.{payload}.{signature[:-10]}{'A' * 10}"
    good = {"deployment": deployment, "tenant": "acme"}
    cases = {
        "forms.1": (statement["forms"], good),
        "this is of another deployment": (statement["forms"], {**good, "deployment": "A" * 43}),
        "this is a key of another tenant": (statement["forms"], {**good, "tenant": "globex"}),
        "this is not valid at this time": (statement["forms"], {**good, "now": 0}),
        "this key is not for sealing": (statement["stamp"], good),
        "signature verification failed": (forged, good),
    }
    answer = node(
        """
        return Promise.all(given.cases.map(([statement, pinned]) =>
          verifyPublicKey(statement, pinned).then((key) => key.kid, (error) => error.message)));
        """,
        cases=list(cases.values()),
    )
    assert answer["result"] == list(cases)


def test_the_page_runs_as_written_and_the_host_opens_what_was_sealed(tenant, tmp_path):
    require.javascript()
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    # The packages are there already, as the lock file has them; the network may not be.
    copy = tmp_path / "README.md"
    copy.write_text(re.sub(r"^npm ci .*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    printed = run_blocks(copy, tmp_path, tenant.environment("admin"))
    assert printed[-1] == "meet at nine\n"


def test_the_lock_file_names_no_place_and_pins_every_package():
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert len(packages) > 5
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not [name for name, package in packages.items() if "resolved" in package]
    declared = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    assert all(packages[f"node_modules/{name}"]["version"] == version for name, version in declared.items())
