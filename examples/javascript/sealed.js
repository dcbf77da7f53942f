// Cloister's sealed values with public packages only: JOSE (`jose`) and HPKE (`hpke`, `@panva/hpke-noble`).
// The format is sdk/cloister/envelope/SPEC.md: a compact JWE whose key is sealed to a tenant's public key.

import { KDF_SHAKE256, KEM_MLKEM768_X25519 } from "@panva/hpke-noble";
import { AEAD_AES_256_GCM, CipherSuite, KDF_HKDF_SHA256, KEM_DHKEM_P256_HKDF_SHA256 } from "hpke";
import { base64url, compactVerify, importJWK } from "jose";

const { subtle } = globalThis.crypto;
const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true });
const b64 = base64url.encode;
const bytes = base64url.decode;
const concat = async (...parts) => new Uint8Array(await new Blob(parts).arrayBuffer());

// "HPKE-10-KE" is post-quantum (ML-KEM-768 with X25519); "HPKE-7-KE" is P-256, for FIPS-only deployments.
const SUITES = {
  "HPKE-10-KE": new CipherSuite(KEM_MLKEM768_X25519, KDF_SHAKE256, AEAD_AES_256_GCM),
  "HPKE-7-KE": new CipherSuite(KEM_DHKEM_P256_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_256_GCM),
};
// What a key is sealed for: "JOSE-HPKE rcpt", the content encryption, and nothing more, with 0xFF between.
const FF = Uint8Array.of(0xff);
const INFO = await concat("JOSE-HPKE rcpt", FF, "A256GCM", FF);
const VALUE = "cloister-value+jwe";
const KEY_STATEMENT = "cloister-key+jwt";

/**
 * Check the deployment's word for a tenant's public key (what `cloister key public` prints as `statement`).
 * The name of a deployment is the digest of the key it signs with, so the name is all that has to be pinned.
 */
export async function verifyPublicKey(statement, { deployment, tenant, now = Date.now() / 1000 }) {
  const given = JSON.parse(text.decode(bytes(statement.split(".")[0])));
  const digest = await subtle.digest("SHA-256", bytes(given.x));
  if (b64(new Uint8Array(digest)) !== deployment) throw new Error("this is of another deployment");

  const signer = await importJWK({ kty: "OKP", crv: "Ed25519", x: given.x }, "EdDSA");
  const { payload, protectedHeader } = await compactVerify(statement, signer, { algorithms: ["EdDSA"] });
  const claims = JSON.parse(text.decode(payload));
  if (protectedHeader.typ !== KEY_STATEMENT) throw new Error("this is no key statement");
  if (claims.deployment !== deployment) throw new Error("this names another deployment");
  if (claims.tenant !== tenant) throw new Error("this is a key of another tenant");
  if (!(claims.nbf <= now && now < claims.exp)) throw new Error("this is not valid at this time");
  if (claims.purpose !== "seal-public") throw new Error("this key is not for sealing");
  return { ...claims.jwk, kid: claims.kid };
}

/** Seal a value to a verified public key: a Uint8Array, a string, or JSON. Nothing is asked of a host. */
export async function seal(value, jwk, context) {
  const suite = SUITES[jwk.alg];
  if (!suite) throw new Error(`${jwk.alg} is no key to seal to`);
  const [cty, content] = encode(value);

  // (1) A key for this value alone, sealed to the tenant's key. Only the enclave host can take it out.
  const cek = crypto.getRandomValues(new Uint8Array(32));
  const recipient = await suite.DeserializePublicKey(await publicBytes(jwk));
  const sealed = await suite.Seal(recipient, cek, { info: INFO });

  // (2) The header, which is authenticated: it names the key, the type, and what the value is bound to.
  const ek = b64(sealed.encapsulatedSecret);
  const header = { alg: jwk.alg, enc: "A256GCM", kid: jwk.kid, typ: VALUE, ek, cty };
  if (context !== undefined) header.ctx = await contextTag(cek, context);
  const protectedHeader = b64(utf8.encode(JSON.stringify(header)));

  // (3) The value under that key; the last 16 bytes that AES-GCM gives are the tag.
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const key = await subtle.importKey("raw", cek, "AES-GCM", false, ["encrypt"]);
  const additionalData = utf8.encode(protectedHeader);
  const out = new Uint8Array(await subtle.encrypt({ name: "AES-GCM", iv, additionalData }, key, content));
  const parts = [sealed.ciphertext, iv, out.subarray(0, -16), out.subarray(-16)];
  return [protectedHeader, ...parts.map((part) => b64(part))].join(".");
}

/** Open a value with the private key, for those who hold it: their own, or one that left the host. */
export async function open(value, jwk, context) {
  const [protectedHeader, encryptedKey, iv, ciphertext, tag, ...more] = value.split(".");
  const header = JSON.parse(text.decode(bytes(protectedHeader)));
  const suite = SUITES[jwk.alg];
  const isValue = !more.length && header.typ === VALUE && header.enc === "A256GCM" && !("crit" in header);
  if (!suite || !isValue || header.alg !== jwk.alg || header.kid !== jwk.kid) {
    throw new Error("this is no value for this key");
  }

  const recipient = {
    privateKey: await suite.DeserializePrivateKey(bytes(jwk.kty === "AKP" ? jwk.priv : jwk.d)),
    publicKey: await suite.DeserializePublicKey(await publicBytes(jwk)),
  };
  const cek = await suite.Open(recipient, bytes(header.ek), bytes(encryptedKey), { info: INFO });
  const key = await subtle.importKey("raw", cek, "AES-GCM", false, ["decrypt"]);
  const parameters = { name: "AES-GCM", iv: bytes(iv), additionalData: utf8.encode(protectedHeader) };
  const content = await subtle.decrypt(parameters, key, await concat(bytes(ciphertext), bytes(tag)));

  // Absent is not `{}`: a bound value opens with its context only, and one that is not bound with none.
  const expected = context === undefined ? undefined : await contextTag(cek, context);
  if (header.ctx !== expected) throw new Error("the value is bound to another context");
  return header.cty === "octets" ? new Uint8Array(content)
    : header.cty === "text" ? text.decode(content) : JSON.parse(text.decode(content));
}

/** What binds a value to its context: an HMAC under a key from the value's own; nobody else can guess it. */
async function contextTag(cek, context) {
  const names = Object.keys(context).sort(); // by UTF-16 code units, as RFC 8785 wants it
  const canonical = `{${names.map((name) => `${JSON.stringify(name)}:${textOf(context[name])}`).join(",")}}`;
  const info = utf8.encode("cloister.ctx.v1");
  const base = await subtle.importKey("raw", cek, "HKDF", false, ["deriveKey"]);
  const hkdf = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info };
  const hmac = { name: "HMAC", hash: "SHA-256", length: 256 };
  const key = await subtle.deriveKey(hkdf, base, hmac, false, ["sign"]);
  return b64(new Uint8Array(await subtle.sign("HMAC", key, utf8.encode(canonical))).subarray(0, 16));
}

function textOf(value) {
  if (typeof value !== "string" || !value.isWellFormed()) throw new TypeError("a context maps text to text");
  return JSON.stringify(value);
}

function encode(value) {
  if (value instanceof Uint8Array) return ["octets", value];
  if (typeof value !== "string") return ["json", utf8.encode(JSON.stringify(value))];
  if (!value.isWellFormed()) throw new TypeError("the text has a lone surrogate in it");
  return ["text", utf8.encode(value)];
}

function publicBytes(jwk) {
  return jwk.kty === "AKP" ? bytes(jwk.pub) : concat(Uint8Array.of(4), bytes(jwk.x), bytes(jwk.y));
}
