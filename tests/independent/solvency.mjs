// A solvency/1 against the books as replayed so far and the policy of its time (docs/reference/solvency.md).
import { canonical, documentSigned, fractionText, members, micros, need, parseCanonical, parseFraction,
  same } from "./formats.mjs";
import { inForce } from "./rating.mjs";

const OWED = /^(acc_|prv_|transit\/)/;
const DOCUMENT = ["type", "window", "at", "journal", "owed", "held", "covered", "assets"];
const ASSET = ["chain", "network", "account", "asset", "amount", "suspense", "ledger", "closed_at", "micro_per_unit"];

export function checkSolvency(world, line) {
  const { head, balances, chains } = world;
  const name = `window ${line.window}`;
  documentSigned(line.document, line.signatures, world.signsAt(head.seq), "solvency_signature", name);
  const found = parseCanonical(line.document, "solvency_figures", name);
  members(found, DOCUMENT, "solvency_type", name);
  need(found.type === "solvency/1", "solvency_type", name, "not a solvency/1");
  const known = found.window === line.window && world.windows.all.get(line.window)?.digest !== undefined;
  need(known && line.window > (world.measured ?? 0), "solvency_window", name, "no checkpoint, or measured before");
  world.measured = line.window;
  const { seq, hash } = head;
  need(line.journal_seq === seq && same(found.journal, { seq, hash }), "solvency_journal", name, "another entry");
  let owed = 0n;
  for (const [id, amount] of balances) if (OWED.test(id)) owed += amount;
  need(found.owed === String(owed), "solvency_owed", name, `${owed} is owed`);
  const policy = inForce(world.policies, micros(found.at));
  let [n, d, short] = [0n, 1n, false];
  for (const each of found.assets) {
    members(each, ASSET, "solvency_assets", name);
    const chain = chains.get(each.chain);
    need(chain?.network === each.network && chain.treasury === each.account, "solvency_assets", name, "where it is");
    const value = world.index.measured(policy, each.chain, each.asset);
    need(each.micro_per_unit === (value && fractionText(value)), "solvency_assets", name, "its worth");
    const waiting = balances.get(`suspense/${each.chain}/${each.asset}`) ?? 0n;
    need(each.suspense === String(waiting), "solvency_assets", name, `${waiting} is in suspense`);
    const ours = BigInt(each.amount) - waiting;
    short ||= ours < 0n;
    const [vn, vd] = each.micro_per_unit === null ? [0n, 1n] : parseFraction(each.micro_per_unit);
    [n, d] = [n * vd + ours * vn * d, d * vd];
  }
  const held = n < 0n ? -((-n + d - 1n) / d) : n / d;
  need(found.held === String(held), "solvency_figures", name, `${held} is held`);
  need(found.covered === (!short && held >= owed), "solvency_figures", name, "covered");
  need(new Set(found.assets.map((each) => canonical([each.chain, each.asset]))).size === found.assets.length,
    "solvency_assets", name, "an asset comes twice");
}
