// A proof/1, checked offline in the order of docs/reference/proof.md.
import { climb, detachedSigner, documentSigned, leafHash, members, micros, need, node, parseCanonical, publicKey,
  readHandover, sha256, sumLeaf, sumNode, unbase64 } from "./formats.mjs";
import { readStep } from "./demand.mjs";
import { madeAt } from "./rating.mjs";

const MEMBERS = ["type", "tree", "leaf", "index", "size", "path", "checkpoint", "anchors", "service_key",
  "handovers"];
const LEAVES = {
  records: ["charge_pico", "line", "provider", "rates", "record", "report", "salt", "window"],
  positions: ["earned", "net", "party", "payout", "salt", "spent", "window"],
  liabilities: ["account", "amount", "salt"],
};

// All kids that are linked to the one that signed; it must be among them.
export function chain(handovers, kid) {
  const kids = [];
  for (const { from, to } of handovers.map(readHandover)) {
    need(!kids.length || kids.at(-1) === from, "service_key_order", to, "it does not follow the key before it");
    kids.push(...(kids.length ? [to] : [from, to]));
  }
  need(!kids.length || kids.includes(kid), "service_key_order", kid, "the hand-overs do not lead to it");
  return kids.length ? kids : [kid];
}

// Every key that the hand-overs name, by kid.
export function keysOf(handovers) {
  const named = handovers.flatMap(({ document }) => [JSON.parse(document).previous, JSON.parse(document).key]);
  return new Map(named.map(publicKey).map(({ kid, key }) => [kid, key]));
}

// A consistency/1: the later checkpoint's record tree begins with the first one's (merkle.md, Consistency).
export function checkConsistency(proof, trusted) {
  members(proof, ["type", "first", "later", "path", "service_key", "handovers"], "proof_type", proof.type);
  const signer = publicKey(proof.service_key);
  const keys = keysOf(proof.handovers).set(signer.kid, signer.key);
  const kids = chain(proof.handovers, signer.kid);
  need(!trusted.length || kids.some((each) => trusted.includes(each)), "key_not_trusted", signer.kid, "not trusted");
  const [first, later] = ["first", "later"].map((name) => {
    const { document, signatures } = proof[name];
    documentSigned(document, signatures, (kid) => keys.get(kid), "checkpoint_signature", name);
    return parseCanonical(document, "checkpoint_canonical", name);
  });
  const [old, size] = [first.records.size, later.records.size];
  need(first.window <= later.window && old <= size, "proof_size", later.window, "the later one has fewer records");
  const path = proof.path.map((hash) => Buffer.from(hash, "hex"));
  const [from, to] = [first, later].map((each) => Buffer.from(each.records.root, "hex"));
  need(grows(old, from, size, to, path), "proof_path", later.window, "the later tree does not begin with the first");
  return { windows: [first.window, later.window], sizes: [old, size], path: path.length };
}

function grows(old, from, size, to, path) {
  if (old === 0) return path.length === 0 && from.equals(sha256(""));
  if (old === size) return path.length === 0 && from.equals(to);
  let [fn, sn, rest] = [BigInt(old) - 1n, BigInt(size) - 1n, path];
  if ((fn & BigInt(old)) === 0n) rest = [from, ...path];
  while (fn & 1n) [fn, sn] = [fn >> 1n, sn >> 1n];
  if (!rest.length) return false;
  let [fr, sr] = [rest[0], rest[0]];
  for (const p of rest.slice(1)) {
    if (sn === 0n) return false;
    if (fn & 1n || fn === sn) {
      [fr, sr] = [node(p, fr), node(p, sr)];
      while (!(fn & 1n) && fn !== 0n) [fn, sn] = [fn >> 1n, sn >> 1n];
    } else {
      sr = node(sr, p);
    }
    [fn, sn] = [fn >> 1n, sn >> 1n];
  }
  return sn === 0n && fr.equals(from) && sr.equals(to);
}

export function checkProof(proof, trusted) {
  if (proof.type === "consistency/1") return checkConsistency(proof, trusted);
  const { tree, index, size, checkpoint } = proof;
  need(proof.type === "proof/1", "proof_type", tree, "not a proof/1");
  const asked = tree === "records" && Object.hasOwn(proof, "offer");
  const stands = tree === "records" && Object.hasOwn(proof, "standing");
  const multiplied = tree === "records" && Object.hasOwn(proof, "demand");
  members(proof, [...MEMBERS, ...(asked ? ["offer"] : []), ...(multiplied ? ["demand"] : []), ...(stands ? ["standing"] : [])],
    "proof_type", tree);
  need(Object.hasOwn(LEAVES, tree), "proof_tree", tree, "no such tree");
  const { kid, key } = publicKey(proof.service_key);
  const kids = chain(proof.handovers, kid);
  need(!trusted.length || kids.some((each) => trusted.includes(each)), "key_not_trusted", kid,
    "not one of the kids given, nor linked to one");
  const keyOf = (found) => (found === kid ? key : null);
  documentSigned(checkpoint.document, checkpoint.signatures, keyOf, "checkpoint_signature", checkpoint.window);
  const document = parseCanonical(checkpoint.document, "checkpoint_canonical", checkpoint.window);
  need(document.type === "checkpoint/1" && document.window === checkpoint.window, "proof_window", checkpoint.window,
    "window");
  need(document[tree].size === size && index >= 0 && index < size, "proof_size", index, "not the checkpoint's size");
  const leaf = parseCanonical(proof.leaf, "proof_leaf", index);
  members(leaf, LEAVES[tree], "proof_leaf", index);
  if (tree === "liabilities") {
    const path = proof.path.map(({ sum, hash }) => ({ sum: BigInt(sum), hash: Buffer.from(hash, "hex") }));
    need(path.every(({ sum }) => sum >= 0n) && BigInt(leaf.amount) >= 0n, "proof_path", index, "a sum is negative");
    const top = climb(sumLeaf(leaf.account, BigInt(leaf.amount), leaf.salt), index, size, path, sumNode);
    const { root, total } = document.liabilities;
    need(top?.hash.toString("hex") === root && String(top.sum) === total, "proof_path", index,
      "it does not lead to the root");
  } else {
    need(leaf.window === document.window, "proof_window", index, "the leaf is another window's");
    const top = climb(leafHash(proof.leaf), index, size, proof.path.map((hash) => Buffer.from(hash, "hex")), node);
    need(top?.toString("hex") === document[tree].root, "proof_path", index, "it does not lead to the root");
  }
  if (tree === "records") {
    need(index >= size - document.records.window, "proof_window", index, "the record is an earlier window's");
    need(document.rates.some(({ version }) => version === leaf.rates), "proof_rates", index,
      "a rate table that is not listed");
    if (asked) checkOffer(proof.offer, leaf);
    if (multiplied) {
      const keys = keysOf(proof.handovers).set(kid, key);
      const step = readStep(proof.demand, (each) => keys.get(each));
      const at = leaf.record.hold === undefined ? null : madeAt(leaf.record.hold);
      need(at !== null && step.from <= at && at < step.until, "proof_demand", index, "it was not in force");
    }
  }
  return { kid, tree, window: document.window, index, size, path: proof.path.length };
}

// The offer that was in force at the record's time, signed by the key that comes with it.
function checkOffer({ provider, version, body, signature, jwk }, leaf) {
  const bytes = unbase64(body, "offer_malformed", provider);
  const { kid, key } = publicKey(jwk);
  const [head, , tail] = signature.split(".");
  const signer = detachedSigner(head, tail ?? "", bytes, (found) => (found === kid ? key : undefined), "offer+jws");
  need(signer === kid, "offer_signature", provider, "not this key's signature of the body");
  const offer = JSON.parse(bytes);
  need(offer.type === "offer/1" && offer.version === version && offer.provider === provider && provider === leaf.provider, "offer_malformed",
    provider, "not the provider's offer");
  need(micros(offer.effective_from) <= micros(leaf.record.at), "offer_retroactive", provider, "it was not in force yet");
}
