// A proof/1, checked offline in the order of docs/reference/proof.md.
import { climb, documentSigned, leafHash, members, need, node, parseCanonical, publicKey, readHandover, sumLeaf,
  sumNode } from "./formats.mjs";

const MEMBERS = ["type", "tree", "leaf", "index", "size", "path", "checkpoint", "anchors", "service_key",
  "handovers"];
const LEAVES = {
  records: ["charge_pico", "line", "provider", "rates", "record", "report", "salt", "window"],
  positions: ["earned", "net", "party", "payout", "salt", "spent", "window"],
  liabilities: ["account", "amount", "salt"],
};

// All kids that are linked to the one that signed; it must be among them.
function chain(handovers, kid) {
  const kids = [];
  for (const { from, to } of handovers.map(readHandover)) {
    need(!kids.length || kids.at(-1) === from, "service_key_order", to, "it does not follow the key before it");
    kids.push(...(kids.length ? [to] : [from, to]));
  }
  need(!kids.length || kids.includes(kid), "service_key_order", kid, "the hand-overs do not lead to it");
  return kids.length ? kids : [kid];
}

export function checkProof(proof, trusted) {
  const { tree, index, size, checkpoint } = proof;
  need(proof.type === "proof/1", "proof_type", tree, "not a proof/1");
  members(proof, MEMBERS, "proof_type", tree);
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
  }
  return { kid, tree, window: document.window, index, size, path: proof.path.length };
}
