// The formats of docs/reference: canonical JSON, digests, Ed25519 signatures, Merkle trees, times, fractions.
// Written from those pages alone, as a second opinion on the service's own code.
import { createHash, createPublicKey, verify as verifySignature } from "node:crypto";

export class Broken extends Error {
  constructor(code, subject, detail) {
    super(detail);
    Object.assign(this, { code, subject, detail });
  }
}

export function need(condition, code, subject, detail) {
  if (!condition) throw new Broken(code, String(subject), detail);
}

export const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();
export const digest = (bytes) => "sha256:" + sha256(bytes).toString("hex");

// canonical-json.md. JSON.stringify writes strings as the page has them; keys are ASCII, so code units order them.
export function canonical(value) {
  if (Array.isArray(value)) return "[" + value.map(canonical).join(",") + "]";
  if (value !== null && typeof value === "object") {
    const keys = Object.keys(value).sort();
    return "{" + keys.map((key) => JSON.stringify(key) + ":" + canonical(value[key])).join(",") + "}";
  }
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw new Error("not an integer of canonical JSON");
  return JSON.stringify(value);
}

export const same = (one, other) => canonical(one) === canonical(other);

export function parseCanonical(text, code, subject) {
  let value;
  try {
    value = JSON.parse(text);
    need(canonical(value) === text, code, subject, "the text is not canonical JSON");
  } catch (error) {
    if (error instanceof Broken) throw error;
    throw new Broken(code, subject, "the text is not JSON");
  }
  return value;
}

export function members(value, names, code, subject) {
  const found = Object.keys(value).sort().join(" ");
  need(found === [...names].sort().join(" "), code, subject, `members are ${found}`);
}

// RFC 3339 in UTC with at most microseconds, as a count of microseconds.
export function micros(text) {
  const found = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?Z$/.exec(text ?? "");
  const seconds = found ? Date.parse(found[1] + "Z") : NaN;
  if (Number.isNaN(seconds)) throw new Broken("time_malformed", String(text), "not a time of RFC 3339 in UTC");
  return BigInt(seconds) * 1000n + BigInt((found[2] ?? "").padEnd(6, "0"));
}

// Fractions in text ("9/2000", "1") as [numerator, denominator] in lowest terms.
export function fraction(numerator, denominator) {
  let [a, b] = [numerator, denominator];
  while (b) [a, b] = [b, a % b];
  return [numerator / a, denominator / a];
}

export function parseFraction(text) {
  const found = /^(\d+)(?:\/(\d+))?$/.exec(text);
  if (!found || found[2] === "0") throw new Broken("fraction_malformed", text, "not a fraction");
  return fraction(BigInt(found[1]), BigInt(found[2] ?? "1"));
}

export const fractionText = ([n, d]) => (d === 1n ? `${n}` : `${n}/${d}`);

// signatures.md
const unbase64url = (text) => {
  const bytes = Buffer.from(text, "base64url");
  return bytes.toString("base64url") === text ? bytes : null;
};

export function unbase64(text, code, subject) {
  const bytes = Buffer.from(text, "base64");
  need(bytes.toString("base64") === text, code, subject, "not padded base64 in its one spelling");
  return bytes;
}

export function publicKey(jwk) {
  const { crv, kty, x } = jwk;
  need(crv === "Ed25519" && kty === "OKP" && unbase64url(x)?.length === 32, "key_malformed", x, "not an Ed25519 key");
  const kid = sha256(JSON.stringify({ crv, kty, x })).toString("base64url");
  return { kid, key: createPublicKey({ key: { crv, kty, x }, format: "jwk" }) };
}

// The kid of a protected header when its members are as the page wants them, else null.
function signerOf(encoded, typ, detached) {
  try {
    const header = JSON.parse(unbase64url(encoded).toString("utf8"));
    const names = Object.keys(header).filter((name) => name !== "typ").sort().join(" ");
    const framed = detached ? header.b64 === false && same(header.crit, ["b64"]) : header.typ === typ;
    const known = names === (detached ? "alg b64 crit kid" : "alg kid") && framed;
    const algorithm = header.alg === "Ed25519" || header.alg === "EdDSA";
    return known && algorithm && (header.typ === undefined || header.typ === typ) ? header.kid : null;
  } catch {
    return null;
  }
}

// The kid that signed these bytes, or null. `keyOf` finds a key by kid.
export function detachedSigner(encoded, signature, body, keyOf, typ) {
  const kid = signerOf(encoded, typ, true);
  const key = kid && keyOf(kid);
  const raw = unbase64url(signature);
  if (!key || raw?.length !== 64) return null;
  return verifySignature(null, Buffer.concat([Buffer.from(encoded + "."), body]), key, raw) ? kid : null;
}

export function compactPayload(text, keyOf, typ) {
  const [head, payload, signature, more] = text.split(".");
  const kid = more === undefined && signature !== undefined ? signerOf(head, typ, false) : null;
  const key = kid && keyOf(kid);
  const raw = key && unbase64url(signature);
  if (raw?.length !== 64 || !verifySignature(null, Buffer.from(`${head}.${payload}`), key, raw)) return null;
  return unbase64url(payload)?.toString("utf8") ?? null;
}

export function documentSigned(text, signatures, keyOf, code, subject) {
  const seen = new Set();
  for (const { protected: encoded, signature } of signatures) {
    const kid = detachedSigner(encoded, signature, Buffer.from(text), keyOf, undefined);
    need(kid && !seen.has(kid), code, subject, "a signature is not one of a service key, or a key counts twice");
    seen.add(kid);
  }
  need(seen.size > 0, code, subject, "nobody signed it");
}

// signatures.md, hand-overs: one key of the service names the next, and both sign it.
export function readHandover({ document, signatures }) {
  const { type, at, key, previous } = parseCanonical(document, "service_key_malformed", "hand-over");
  members({ type, at, key, previous }, Object.keys(JSON.parse(document)), "service_key_malformed", "hand-over");
  need(type === "service-key/1" && micros(at) > 0n, "service_key_malformed", "hand-over", "not a service-key/1");
  const [from, to] = [publicKey(previous), publicKey(key)];
  const keyOf = (kid) => [from, to].find((each) => each.kid === kid)?.key;
  documentSigned(document, signatures, keyOf, "service_key_signature", to.kid);
  need(signatures.length === 2, "service_key_signature", to.kid, "both keys must sign");
  return { from: from.kid, to: to.kid };
}

// merkle.md. A tree grows as a list of perfect subtrees, largest first; folding them from the right gives its root.
const u128 = (value) => Buffer.from(value.toString(16).padStart(32, "0"), "hex");
export const leafHash = (text) => sha256(Buffer.from([0]), text);
export const node = (left, right) => sha256(Buffer.from([1]), left, right);

export function sumLeaf(account, amount, salt) {
  return { sum: amount, hash: sha256(Buffer.from([2]), Buffer.from(salt, "hex"), account, u128(amount)) };
}

export function sumNode(left, right) {
  const hash = sha256(Buffer.from([3]), u128(left.sum), left.hash, u128(right.sum), right.hash);
  return { sum: left.sum + right.sum, hash };
}

export class Tree {
  constructor(join, empty) {
    Object.assign(this, { join, empty, size: 0, parts: [] });
  }

  static ofHashes = () => new Tree(node, sha256(""));
  static ofSums = () => new Tree(sumNode, { sum: 0n, hash: sha256(Buffer.from([2])) });

  add(leaf) {
    this.size += 1;
    let part = { size: 1, top: leaf };
    while (this.parts.at(-1)?.size === part.size) {
      part = { size: part.size * 2, top: this.join(this.parts.pop().top, part.top) };
    }
    this.parts.push(part);
  }

  root() {
    return this.parts.map((part) => part.top).reduceRight((right, left) => (right ? this.join(left, right) : left),
      null)
      ?? this.empty;
  }
}

// Where a path leads from a leaf; null when its length is not what index and size ask for.
export function climb(leaf, index, size, path, join) {
  let [at, last, found] = [BigInt(index), BigInt(size) - 1n, leaf];
  if (at > last) return null;
  for (const sibling of path) {
    if (last === 0n) return null;
    while (at % 2n === 0n && at === last) [at, last] = [at >> 1n, last >> 1n];
    found = at % 2n ? join(sibling, found) : join(found, sibling);
    [at, last] = [at >> 1n, last >> 1n];
  }
  return last === 0n ? found : null;
}
