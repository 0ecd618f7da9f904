// The last step, on a chain: does the transaction carry the digest (docs/reference/anchors.md)? Asks a node by fetch.
import { need } from "./formats.mjs";

async function ask(url, body) {
  const answer = await fetch(url, body ? { method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify(body) } : {}).catch(() => null);
  if (answer?.status === 404 && !body) return null;
  return answer?.ok ? answer.json().catch(() => undefined) : undefined;
}

async function xrpl(url, tx) {
  const found = (await ask(url, { method: "tx", params: [{ transaction: tx, binary: false }] }))?.result;
  need(found, "node_unreachable", tx, "no answer that can be used");
  if (found.error === "txnNotFound") return null;
  need(!found.error && found.hash === tx, "node_unreachable", tx, String(found.error));
  const state = (await ask(url, { method: "server_state", params: [{}] }))?.result?.state;
  const content = found.tx_json ?? found;
  const memos = (content.Memos ?? []).map(({ Memo }) => (Memo.MemoData ?? "").toLowerCase());
  return { final: found.validated === true, good: found.meta?.TransactionResult === "tesSUCCESS",
    ledger: found.ledger_index, account: content.Account, network: `xrpl:${state?.network_id ?? 0}`, memos };
}

// XDR TransactionEnvelope (of a fee bump the inner one): the source account's raw key and the memo, if it is a hash.
function envelope(bytes) {
  let at = 0;
  const take = (size) => bytes.subarray(at, (at += size));
  const u32 = () => take(4).readUInt32BE();
  const source = () => {
    if (u32() === 0x100) take(8);
    return take(32);
  };
  const skip = [() => take(32), () => take(32), () => take(32), () => (take(32), take((u32() + 3) & ~3))];
  if (u32() === 5) {
    source(), take(8);
    need(u32() === 2, "node_unreachable", "envelope", "not a transaction");
  }
  const account = source();
  take(12);
  const conditions = u32();
  if (conditions === 1) take(16);
  if (conditions === 2) {
    if (u32()) take(16);
    if (u32()) take(8);
    if (u32()) take(8);
    take(12);
    for (let left = u32(); left; left -= 1) skip[u32()]();
  }
  const memo = u32();
  return { account, memos: memo === 3 ? [take(32).toString("hex")] : [] };
}

async function stellar(url, tx) {
  const asked = await ask(url, { jsonrpc: "2.0", id: 1, method: "getTransaction", params: { hash: tx.toLowerCase() } });
  const rpc = asked?.result;
  const found = rpc ?? await ask(`${url.replace(/\/$/, "")}/transactions/${tx.toLowerCase()}`);
  need(found !== undefined, "node_unreachable", tx, "no answer that can be used");
  if (found === null || found.status === "NOT_FOUND") return null;
  const { account, memos } = envelope(Buffer.from(rpc ? found.envelopeXdr : found.envelope_xdr, "base64"));
  return { final: true, good: rpc ? found.status === "SUCCESS" : found.successful === true, ledger: found.ledger,
    account: null, raw: account, network: null, memos };
}

const CHAINS = { xrpl, stellar };

// Anchors as {chain, network, tx, ledger, digest, account?}; `nodes` are URLs by chain. How many hold.
export async function checkAnchors(anchors, nodes) {
  let held = 0;
  for (const { chain, network, tx, ledger, digest, account } of anchors) {
    if (!Object.hasOwn(nodes, chain)) continue;
    need(Object.hasOwn(CHAINS, chain), "anchor_unsupported", chain, "only xrpl and stellar can be looked up");
    const found = await CHAINS[chain](nodes[chain], tx);
    need(found, "anchor_missing", tx, "the node does not know it");
    need(!network || !found.network || network === found.network, "anchor_network", tx, found.network);
    need(found.final, "anchor_not_final", tx, "in no final ledger");
    need(found.good, "anchor_failed", tx, "it failed on the chain");
    need(found.ledger === ledger, "anchor_ledger", tx, `it is in ledger ${found.ledger}`);
    need(!account || !found.account || account === found.account, "anchor_account", tx, found.account);
    const wanted = digest.slice("sha256:".length);
    need(found.memos.some((memo) => memo.startsWith(wanted)), "anchor_memo", tx, `it carries ${found.memos}`);
    held += 1;
  }
  return held;
}
