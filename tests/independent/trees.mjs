// Trees of every size up to 33 and each path in them, and what tests/vectors (the argument) says of both kinds of tree.
import { readFileSync } from "node:fs";
import { Tree, canonical, climb, leafHash, node, sumLeaf, sumNode } from "./formats.mjs";
const hex = (text) => Buffer.from(text, "hex");
let checked = 0;
for (let size = 1; size <= 33; size += 1) {
  for (const [join, make] of [
    [node, (at) => leafHash(String(at))],
    [sumNode, (at) => sumLeaf(`acc_${at}`, BigInt(at), "00".repeat(16))],
  ]) {
    const leaves = [...Array(size).keys()].map(make);
    const empty = join === node ? Tree.ofHashes : Tree.ofSums;
    const grow = (some) => { const tree = empty(); some.forEach((leaf) => tree.add(leaf)); return tree.root(); };
    const path = (index, some) => {
      if (some.length === 1) return [];
      let split = 1;
      while (split * 2 < some.length) split *= 2;
      const [left, right] = [some.slice(0, split), some.slice(split)];
      return index < split ? [...path(index, left), grow(right)] : [...path(index - split, right), grow(left)];
    };
    const text = (top) => top && (top.hash ? `${top.sum} ${top.hash.toString("hex")}` : top.toString("hex"));
    leaves.forEach((leaf, index) => {
      const way = path(index, leaves);
      if (text(climb(leaf, index, size, way, join)) !== text(grow(leaves))) throw new Error(`${size} ${index}`);
      if (climb(leaf, index, size, [...way, way[0] ?? leaf], join) !== null) throw new Error("too long a path");
      checked += 1;
    });
  }
}
const vectors = JSON.parse(readFileSync(`${process.argv[2]}/merkle.json`));
const tree = Tree.ofHashes();
const roots = [tree.root().toString("hex")];
for (const leaf of vectors.leaves_hex) {
  tree.add(leafHash(hex(leaf)));
  roots.push(tree.root().toString("hex"));
}
const text = canonical({ b: [1, -2, true, null], a: { y: "", x: "0.789722" } });
console.log(JSON.stringify({ checked, roots, text }));
