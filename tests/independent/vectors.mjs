// The vectors of hand-overs, consistency, solvency and sealed windows, read from the pages alone.
import { readFileSync } from "node:fs";
import { Broken, Tree, canonical, climb, digest, leafHash, node, parseFraction, readHandover, sha256 } from "./formats.mjs";
import { checkConsistency } from "./proof.mjs";
import { madeAt } from "./rating.mjs";

const read = (name) => JSON.parse(readFileSync(`${process.argv[2]}/${name}.json`));
const hex = (text) => Buffer.from(text, "hex");
const refused = (check) => {
  try {
    check();
  } catch (error) {
    return error instanceof Broken ? error.code : String(error);
  }
  return "taken";
};

const keys = read("service_key");
const links = keys.handovers.map(readHandover);
const proof = read("consistency");

// solvency.md: what is held is rounded down once, and nothing without a worth covers anything.
function figures(text) {
  const { assets, covered, held, owed } = JSON.parse(text);
  let [n, d] = [0n, 1n];
  for (const { amount, micro_per_unit: worth, suspense } of assets) {
    const [vn, vd] = worth === null ? [0n, 1n] : parseFraction(worth);
    [n, d] = [n * vd + (BigInt(amount) - BigInt(suspense)) * vn * d, d * vd];
  }
  return String(n / d) === held && covered === (n / d >= BigInt(owed));
}
const measured = read("solvency");

// archive.md: leaves of the rows, or what an erasure left of them, on top of the frontier.
const sealed = read("archive");
const salts = new Map(sealed.salts.map(({ consumer, key, hashes }) => [consumer,
  key === null ? hashes.match(/.{64}/g) : hex(key)]));
const hashes = sealed.records.map((row) => {
  const salt = salts.get(row.consumer);
  if (Array.isArray(salt)) return hex(salt.shift());
  const { charge_pico, line, provider, rates, record, report } = row;
  return leafHash(canonical({ charge_pico, line, provider, rates, record: JSON.parse(record), report: `sha256:${report}`,
    salt: sha256(salt, hex(row.id)).toString("hex", 0, 16), window: sealed.window }));
});
const tree = Tree.ofHashes();
const before = hex(sealed.frontier);
tree.size = Number(before.readBigUInt64BE());
for (let [at, left] = [8, BigInt(tree.size)]; left > 0n; at += 32) {
  let size = 1n;
  while (size * 2n <= left) size *= 2n;
  tree.parts.push({ size: Number(size), top: before.subarray(at, at + 32) });
  left -= size;
}
for (const hash of hashes) tree.add(hash);
const { index, siblings } = sealed.path;
const top = climb(hashes[index - (sealed.size - hashes.length)], index, sealed.size, siblings.map(hex), node);

console.log(JSON.stringify({
  kids: [links[0].from, ...links.map(({ to }) => to)],
  refused: keys.refused.map((each) => refused(() => readHandover(each))),
  made: [read("ids").ids[0].id, ...read("ids").refused].map((id) => madeAt(id)?.toString() ?? null),
  grown: checkConsistency(proof, [keys.kids[0]]).windows,
  shrunk: refused(() => checkConsistency({ ...proof, path: proof.path.slice(1) }, [])),
  digest: digest(measured.document) === measured.digest,
  figures: [measured.document, ...measured.wrong].map(figures),
  leaves: hashes.map((hash) => hash.toString("hex")),
  size: tree.size, root: tree.root().toString("hex"), top: top.toString("hex"),
}));
