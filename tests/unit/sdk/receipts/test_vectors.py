"""The vectors verify here, and with a reader written from SPEC.md that imports nothing of Cloister."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloister.attestation import AppraisalPolicy
from cloister.protocol import verify_keyset
from cloister.receipts import verify_head
from cloister.receipts.bundle import verify_bundle
from cloister.receipts.entry import verify_entry_proof
from cloister.receipts.export import ExportVerifier
from cloister.receipts.keeper import read_path
from cloister.receipts.merkle import verify_consistency
from cloister.receipts.siem import decode_line

ROOT = Path(__file__).parents[4]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "receipts" / "vectors.json").read_text())


# --- a reader from SPEC.md alone ---


def b64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hashes(text):
    raw = b64(text)
    return [raw[at : at + 32] for at in range(0, len(raw), 32)]


def jws(token, x, typ):
    head, payload, signature = token.split(".")
    Ed25519PublicKey.from_public_bytes(b64(x)).verify(b64(signature), f"{head}.{payload}".encode())
    assert json.loads(b64(head))["typ"] == typ
    return json.loads(b64(payload))


def keyset(token, deployment):
    x = json.loads(b64(token.split(".")[0]))["x"]
    assert base64.urlsafe_b64encode(sha(b64(x))).decode().rstrip("=") == deployment
    return jws(token, x, "cloister-keyset+jwt")


def by_role(keys, role):
    [key] = [key for key in keys["keys"] if key["role"] == role]
    return key["jwk"]["x"]


def root_of(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else sha(b"")
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha(b"\x01", root_of(leaves[:k]), root_of(leaves[k:]))


def included(leaf, index, size, path, root):
    """RFC 9162 section 2.1.3.2."""
    fn, sn, r = index, size - 1, leaf
    for p in path:
        assert sn != 0
        if fn & 1 or fn == sn:
            r = sha(b"\x01", p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sha(b"\x01", r, p)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    assert r == root


def cover(start, end):
    nodes = []
    while start < end:
        level = 0
        while start % (2 << level) == 0 and (2 << level) <= end - start:
            level += 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def leaf_of(salt, entry):
    return sha(b"\x00", sha(b64(salt), entry.encode()))


def read_export(lines, deployment):
    header = json.loads(lines[0])
    log_key = by_role(keyset(header["evidence"]["keyset"], deployment), "log")
    head = jws(header["head"], log_key, "cloister-sth+jwt")
    extent = jws(header["extent"], log_key, "cloister-log-extent+jwt")
    subtrees, at, chain, count = {}, 0, bytes(32), 0
    for line in lines[1:-1]:
        form = r'\{"index":(\d+),"salt":"([\w-]{43})","before":"([\w-]*)","entry":(\{.*\})\}'
        index, salt, before, entry = re.fullmatch(form, line).groups()
        index = int(index)
        subtrees |= dict(zip(cover(at, index), hashes(before), strict=True))
        subtrees[0, index] = leaf = leaf_of(salt, entry)
        chain, count, at = sha(b"\x02", chain, index.to_bytes(8, "big"), leaf), count + 1, index + 1
    end = json.loads(lines[-1])
    subtrees |= dict(zip(cover(at, end["end"]), hashes(end["before"]), strict=True))

    def root(start, stop):
        if stop - start & (stop - start - 1) == 0:
            found = subtrees.get(((stop - start).bit_length() - 1, start // (stop - start)))
            if found is not None:
                return found
        k = 1
        while 2 * k < stop - start:
            k *= 2
        return sha(b"\x01", root(start, start + k), root(start + k, stop))

    assert root(0, head["size"]) == b64(head["root"])
    assert (extent["size"], extent["entries"], b64(extent["chain"])) == (head["size"], count, chain)
    return count


def test_a_leaf_by_the_spec():
    vector = VECTORS["leaf"]
    assert leaf_of(vector["salt"], vector["entry"]) == b64(vector["leaf"])


def test_an_export_by_the_spec():
    assert read_export(VECTORS["export"]["jsonl"], VECTORS["deployment"]) == 4


def test_the_formats_of_siems_carry_the_lines():
    lines = VECTORS["export"]["jsonl"]
    assert [json.loads(event)["raw_data"] for event in VECTORS["export"]["ocsf"]] == lines
    unescaped = [re.sub(r"\\(.)", r"\1", event.partition(" cs6=")[2]) for event in VECTORS["export"]["cef"]]
    assert unescaped == lines


def test_the_proof_of_an_entry_by_the_spec():
    proof = VECTORS["entry_proof"]
    log_key = by_role(keyset(proof["evidence"]["keyset"], VECTORS["deployment"]), "log")
    head = jws(proof["head"], log_key, "cloister-sth+jwt")
    leaf = leaf_of(proof["salt"], proof["entry"])
    included(leaf, proof["index"], head["size"], hashes(proof["path"]), b64(head["root"]))


def test_a_receipt_by_the_spec():
    bundle = VECTORS["bundle"]
    keys = keyset(bundle["evidence"]["keyset"], VECTORS["deployment"])
    claims = jws(bundle["receipt"], by_role(keys, "receipt"), "cloister-receipt+jwt")
    assert claims["eat_profile"] == "urn:cloister:receipt:1"
    assert b64(claims["keyset"]) == sha(bundle["evidence"]["keyset"].encode())
    names = set()
    for text in bundle["disclosures"]:
        assert base64.urlsafe_b64encode(sha(text.encode())).decode().rstrip("=") in claims["_sd"]
        salt, name, value = json.loads(b64(text))
        assert b64(text) == rfc8785.dumps([salt, name, value])
        names.add(name)
    assert names == {"principal", "result_digest", "rows"}
    head = jws(bundle["log"]["head"], by_role(keys, "log"), "cloister-sth+jwt")
    path = hashes(bundle["log"]["path"])
    included(b64(claims["leaf"]), bundle["log"]["index"], head["size"], path, b64(head["root"]))


# --- and here ---

POLICY = AppraisalPolicy.from_toml(
    f"""
    version = 1
    deployment = "{VECTORS["deployment"]}"
    environment = "simulated"

    [[tee.simulated.reference]]
    name = "vectors"
    measurement = "sha256:vectors"

    [config]
    "root.environment" = "simulated"
    unseal = "file"
    """
)


def test_everything_verifies_here_too():
    consistency = VECTORS["consistency"]
    keys = verify_keyset(consistency["keyset"], deployment=VECTORS["deployment"])
    first, second = (verify_head(consistency[name], keyset=keys) for name in ("first", "second"))
    verify_consistency(
        first.size,
        second.size,
        first_root=first.root,
        second_root=second.root,
        path=read_path(consistency["path"]),
    )
    for name, events in VECTORS["export"].items():
        lines = [decode_line(event.encode(), name) for event in events]
        verifier = ExportVerifier(lines[0], deployment=VECTORS["deployment"])
        for line in lines[1:]:
            verifier.feed(line)
        assert verifier.finish().entries == 4
    assert verify_entry_proof(VECTORS["entry_proof"], deployment=VECTORS["deployment"]).index == 9


def test_the_bundles_verify_here_too():
    assert verify_bundle(VECTORS["bundle"], POLICY).index == 9
    found = verify_bundle(VECTORS["bundle_without_disclosures"], POLICY)
    assert found.disclosed == {}
    assert found.head is None


@pytest.mark.parametrize("name", ["make_receipt_vectors"])
def test_the_vectors_can_be_made_anew(name):
    program = f"import sys; sys.path.insert(0, 'tests'); from support.{name} import make; make()"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
