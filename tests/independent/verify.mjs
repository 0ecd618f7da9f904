// A second verifier of audit exports and proofs, in another language and from docs/reference/ alone.
//
//   node verify.mjs EXPORT [KID...]         checks an audit export; with KIDs only these service keys are trusted
//   node verify.mjs proof PROOF [KID...]    checks a proof/1 or consistency/1
//   node verify.mjs statement FILE [KID...]    checks a statement/1
//   node verify.mjs receipt FILE JWK [BODY]    checks a receipt/1, also against the report's bytes
//   node verify.mjs anchors FILE CHAIN=URL...  looks the anchors of an export or a proof up at nodes
//
// It prints one line of JSON: {"ok":true,"counts":{...}}, or {"ok":false,"code","subject","detail"} with exit code 2.
import { createReadStream, readFileSync, statSync } from "node:fs";
import {
  Broken, Tree, detachedSigner, digest, documentSigned, fraction, members, micros, need, parseCanonical, parseFraction,
    publicKey, readHandover, same, sha256, unbase64,
} from "./formats.mjs";
import { checkAnchors } from "./anchors.mjs";
import { Demand, busy } from "./demand.mjs";
import { Disputes } from "./disputes.mjs";
import { checkReceipt, checkStatement } from "./documents.mjs";
import { Governance } from "./governance.mjs";
import { Index } from "./index.mjs";
import { Money } from "./money.mjs";
import { checkProof } from "./proof.mjs";
import { inForce, multiplier } from "./rating.mjs";
import { checkSolvency } from "./solvency.mjs";
import { Surcharges } from "./surcharges.mjs";
import { Usage } from "./usage.mjs";
import { Windows } from "./windows.mjs";

const OWN = /^(treasury|conversion|equity|fees|fx)\//; // the service's own side, which alone may be below zero
const ENTRY = ["at", "facts", "kind", "postings", "subject", "window"];

class Export {
  constructor(trusted) {
    Object.assign(this, { trusted, counts: {}, header: null, pending: null, head: { seq: 0, hash: "00".repeat(32) } });
    Object.assign(this, { balances: new Map(), assets: new Map(), accounts: new Map(), subjects: new Set() });
    Object.assign(this, { serviceKeys: new Map(), keys: new Map(), parties: new Map(), chains: new Map() });
    Object.assign(this, { chain: [], policies: [], tables: [], offers: new Map(), failures: [], volumes: [] });
    Object.assign(this, { tree: Tree.ofHashes() });
    this.governance = new Governance(this);
    this.index = new Index(this);
    this.windows = new Windows(this);
    this.usage = new Usage(this);
    this.money = new Money(this);
    this.disputes = new Disputes(this);
    this.demand = new Demand(this);
    this.surcharges = new Surcharges(this);
    this.readers = {
      header: (line) => { this.header = line; },
      service_key: (line) => this.serviceKey(line), party_key: (line) => this.partyKey(line),
      chain: (line) => this.chains.set(line.chain, line), halt: () => {}, party: (line) => this.party(line),
      policy: (line) => this.policy(line), rate_table: (line) => this.table(line),
      offer: (line) => this.offer(line), governance_document: (line) => this.governance.document(line),
      governance_entry: (line) => this.governance.entry(line),
      account: (line) => this.account(line), funding_intent: (line) => this.money.intent(line),
      report_conflict: (line) => this.usage.conflict(line), dispute: (line) => this.disputes.line(line), window: (line) => this.windows.open(line),
      erasure: (line) => this.windows.erasure(line), retention: (line) => this.windows.retention(line),
      record_salt: (line) => this.windows.salt(line), obligation: (line) => this.windows.obligation(line),
      position: (line) => this.windows.position(line), checkpoint: (line) => this.windows.checkpoint(line),
      usage_report: (line) => this.about("usage", line, this.usage.report(line, this.windows.current)),
      deposit: (line) => this.about("deposit suspense", line, this.money.deposit(line)),
      payout: (line) => this.about("payout_planned withdrawal_planned refund_planned", line, this.money.payout(line)),
      demand: (line) => this.about("demand", { ...line, id: `dem_${line.number}` }, this.demand.line(line)),
      observation: (line) => this.index.observation(line), fixing: (line) => this.index.fixing(line),
      journal_entry: (line) => this.entry(line), chain_order: (line) => this.money.chainOrder(line),
      solvency: (line) => checkSolvency(this, line), attempt: (line) => this.money.attempt(line), attempt_event: (line) => this.money.event(line),
    };
    this.bookers = {
      usage: (entry, about) => this.bookUsage(entry, about), opening: (entry) => this.money.opening(entry),
      deposit: (entry) => this.money.credited(entry), suspense: (entry) => this.money.suspended(entry),
      dispute_opened: (entry) => this.disputes.opened(entry), dispute_answered: (entry) => this.disputes.answered(entry),
      dispute_ruled: (entry) => this.disputes.ruled(entry), dispute_paid: (entry) => this.disputes.paid(entry),
      demand: (entry, about) => this.demand.book(entry, about),
      surcharge_noticed: (entry) => this.surcharges.noticed(entry), surcharge: (entry) => this.surcharges.book(entry),
      netting: (entry) => this.windows.netting(entry), fixing: (entry) => this.index.book(entry),
      withdrawal_fee: (entry) => this.money.withdrawalFee(entry),
      withdrawal_fee_returned: (entry) => this.money.withdrawalFee(entry),
      chain_fee: (entry) => this.money.fee(entry), operation: (entry) => this.money.operation(entry), service_key: (entry) => this.bookServiceKey(entry),
    };
    for (const name of ["payout", "withdrawal", "refund"]) {
      for (const step of ["planned", "settled", "failed"]) {
        this.bookers[`${name}_${step}`] = (entry) => this.money.step(entry);
      }
    }
  }

  read(line) {
    need(this.header ? line.kind !== "header" : line.format === "audit/1", "header_format", line.kind,
      "an audit/1 header comes first");
    need(Object.hasOwn(this.readers, line.kind), "line_kind", line.kind, "not a kind of audit/1");
    need(!this.pending || line.kind === "journal_entry", "line_order", line.kind,
      "an entry must follow what it is about");
    this.counts[line.kind] = (this.counts[line.kind] ?? 0) + 1;
    const linked = line.kind === "header" || line.kind === "service_key" || !this.trusted.length
      || this.trusted.some((kid) => this.serviceKeys.has(kid));
    need(linked, "key_not_trusted", this.chain.at(-1)?.kid, "no key of the service is one of the kids given");
    this.readers[line.kind](line);
  }

  serviceKey(line) {
    const { kid, key } = publicKey(line.jwk);
    need(kid === line.kid, "key_malformed", line.kid, "kid is not the key's thumbprint");
    const before = this.chain.at(-1);
    if (before) {
      const after = readHandover(line);
      need(after.from === before.kid && after.to === kid && !this.serviceKeys.has(kid)
        && line.journal_seq > before.seq, "service_key_order", kid, "it does not follow the key before it");
    } else {
      need(line.journal_seq === 0 && line.document === null, "service_key_order", kid, "the first key follows none");
    }
    this.chain.push({ kid, seq: line.journal_seq, digest: line.document && digest(line.document) });
    this.serviceKeys.set(kid, key);
  }

  // The key that signs what is about the journal up to an entry.
  signsAt(seq) {
    const { kid } = this.chain.findLast((each) => each.seq <= seq);
    return (found) => (found === kid ? this.serviceKeys.get(kid) : null);
  }

  bookServiceKey({ seq, payload: { subject, facts, postings } }) {
    const at = this.chain.findIndex((each) => each.kid === subject);
    const right = at > 0 && this.chain[at].seq === seq && same(postings, [])
      && same(facts, { digest: this.chain[at].digest, previous: this.chain[at - 1].kid });
    need(right, "service_key_entry", subject, "the journal's hand-over is not the key's");
    this.chain[at].booked = true;
  }

  partyKey(line) {
    const { kid, key } = publicKey(line.jwk);
    need(kid === line.kid, "key_malformed", line.kid, "kid is not the key's thumbprint");
    need(!this.keys.has(kid) && this.parties.has(line.party), "key_repeated", kid, "registered twice, or for nobody");
    const until = line.revoked_at === null ? null : micros(line.revoked_at);
    this.keys.set(kid, { key, party: line.party, from: micros(line.valid_from), until });
  }

  party(line) {
    need(!this.parties.has(line.id), "party_repeated", line.id, "twice");
    need(line.id.startsWith(line.party_kind === "provider" ? "prv_" : "acc_"), "party_kind", line.id, line.party_kind);
    this.parties.set(line.id, line);
    if (line.account === null) return;
    need(line.party_kind === "provider", "party_link", line.id, "only a provider names an account");
    need(!this.windows.owners.has(line.account), "party_link", line.id, "two providers name one account");
    this.windows.owners.set(line.account, line.id);
  }

  // Policies and rate tables alike: canonical, content-addressed, signed, one after another.
  document(line, name, list) {
    const document = parseCanonical(line.document, `${name}_malformed`, line.version);
    need(digest(line.document) === line.digest, `${name}_digest`, line.version, "digest is not that of the document");
    documentSigned(line.document, line.signatures, (kid) => this.serviceKeys.get(kid), `${name}_signature`,
      line.version);
    need(line.version === list.length + 1 && document.version === line.version, `${name}_version`, line.version,
      "versions");
    need(document.effective_from === line.effective_from, `${name}_malformed`, line.version, "effective_from");
    return { version: line.version, digest: line.digest, from: micros(line.effective_from), document };
  }

  policy(line) {
    const found = this.document(line, "policy", this.policies);
    const { type, value, minimum_payout: minimum } = found.document;
    need(type === "policy/1" && ["fixed_usd", "settlement_asset", "index"].includes(value.mode), "policy_malformed", line.version,
      "not a policy/1 that is known");
    const { minimum: least, fee } = found.document.withdrawals ?? { minimum: "222222222", fee: "2222222" };
    this.policies.push({ ...found, minimum: BigInt(minimum), withdrawals: [BigInt(least), BigInt(fee)] });
  }

  table(line) {
    const found = this.document(line, "rate_table", this.tables);
    const before = this.tables.at(-1);
    need(found.document.type === "rates/1", "rate_table_malformed", line.version, "not a rates/1");
    need(found.document.parent === (before?.digest ?? null), "rate_table_parent", line.version,
      "parent is not the version before");
    need(!before || found.from > before.from, "rate_table_retroactive", line.version,
      "it begins before the version before");
    const published = micros(line.published_at);
    need(!before || published <= found.from, "rate_table_retroactive", line.version, "it was published after it began");
    this.tables.push({ ...found, published });
  }

  offer(line) {
    const subject = `${line.provider} ${line.version}`;
    const body = unbase64(line.body, "offer_digest", subject);
    need(digest(body) === line.digest, "offer_digest", subject, "digest is not that of the body");
    const [head, , signature] = line.signature.split(".");
    const signer = detachedSigner(head, signature ?? "", body, (kid) => this.keys.get(kid)?.key, "offer+jws");
    const [key, received, from] = [this.keys.get(signer), micros(line.received_at), micros(line.effective_from)];
    need(signer === line.kid && key.party === line.provider, "offer_signature", subject, "not the provider's signature");
    need(key.from <= received && (key.until === null || received < key.until), "offer_key", subject,
      "the key was not valid then");
    const document = JSON.parse(body);
    const told = [document.type, document.provider, document.version, document.effective_from];
    need(same(told, ["offer/1", line.provider, line.version, line.effective_from]), "offer_malformed", subject,
      "the line is not the body's");
    const earlier = this.offers.get(line.provider) ?? [];
    const before = earlier.at(-1);
    need(line.version === earlier.length + 1, "offer_version", subject, "versions");
    need(document.parent === (before?.digest ?? null), "offer_parent", subject, "parent is not the version before");
    const policy = inForce(this.policies, received);
    const rules = policy?.document.pricing ?? { lowest_ask: "1/4", highest_ask: "4", offer_notice_seconds: 600 };
    need(from >= received + BigInt(rules.offer_notice_seconds) * 1_000_000n && (!before || from > before.from),
      "offer_retroactive", subject, "it is in force too soon");
    const [[ln, ld], [hn, hd]] = [parseFraction(rules.lowest_ask), parseFraction(rules.highest_ask)];
    const asks = [document.usual, ...document.asks.map((each) => each.multiplier)].map(multiplier);
    need(policy && asks.every((ask) => ask * ld >= ln * 10000n && ask * hd <= hn * 10000n), "offer_band", subject,
      "an ask is outside of the policy's band");
    this.offers.set(line.provider, [...earlier, { digest: line.digest, from, document }]);
  }

  // rounding.md, 2: microCU for the asset's smallest unit, or null when the policy gives it no value. `price` is what a
  // CU is worth by a fixing.
  value(policy, chain, asset, price = null) {
    const places = this.chains.get(chain)?.assets[asset];
    if (places === undefined || !policy) return null;
    const [code, { value }] = [asset.split(":")[0], policy.document];
    if (value.mode === "settlement_asset") {
      const [un, ud] = parseFraction(value.units_per_cu);
      return code === value.asset ? fraction(ud * 1_000_000n, un * 10n ** BigInt(places)) : null;
    }
    const worth = value.usd_per_asset[code];
    if (worth === undefined) return null;
    const [[an, ad], [un, ud]] = [parseFraction(worth), price ?? parseFraction(value.usd_per_cu)];
    return fraction(an * ud * 1_000_000n, ad * un * 10n ** BigInt(places));
  }

  // policy.md, `standing`: the multiplier of a consumer by what it was charged before the day of a time.
  standing(consumer, at) {
    const begins = at - (at % 86_400_000_000n);
    const rules = inForce(this.policies, begins)?.document.standing;
    let [volume, value] = [0n, 10_000n];
    if (!rules?.tiers.length) return value;
    for (const { closed, charged } of this.volumes) {
      const counts = begins - BigInt(rules.span_seconds) * 1_000_000n <= closed && closed <= begins - 3_600_000_000n;
      if (counts) volume += charged.get(consumer) ?? 0n;
    }
    for (const tier of rules.tiers) {
      const [n, d] = parseFraction(tier.multiplier);
      if (BigInt(tier.volume) <= volume) value = (n * 10_000n) / d;
    }
    return value;
  }

  // demand.md: the multiplier of demand of a provider's record.
  busy(provider, record) {
    return busy(this.demand.steps, provider, record.hold);
  }

  account(line) {
    need(!this.accounts.has(line.id), "account_repeated", line.id, "twice");
    const kind = this.parties.get(line.id)?.party_kind ?? line.id.split("/")[0];
    const id = this.parties.has(line.id) ? line.id : `${kind}/${line.asset}`;
    need(kind === line.account_kind && id === line.id, "account_kind", line.id, line.account_kind);
    need(this.parties.has(line.id) === /^(acc|prv)_/.test(line.id), "party_unknown", line.id, "an account of nobody");
    this.accounts.set(line.id, line);
  }

  about(kinds, line, found) {
    this.pending = { kinds, line, found };
  }

  entry(line) {
    const subject = `entry ${line.seq}`;
    need(line.seq === this.head.seq + 1, "journal_gap", subject, `entry ${this.head.seq + 1} is next`);
    need(line.previous === this.head.hash, "journal_chain", subject, "previous is not the hash of the entry before");
    const payload = Buffer.from(line.payload);
    const numbers = Buffer.alloc(12);
    numbers.writeBigUInt64BE(BigInt(line.seq));
    numbers.writeUInt32BE(payload.length, 8);
    const hash = sha256("CUJ1", numbers.subarray(0, 8), Buffer.from(line.previous, "hex"), numbers.subarray(8),
      payload);
    need(hash.toString("hex") === line.hash, "journal_hash", subject, "hash is not that of the payload");
    const entry = { seq: line.seq, hash: line.hash, payload: parseCanonical(line.payload, "entry_malformed", subject) };
    const { kind, subject: what, window } = entry.payload;
    members(entry.payload, ENTRY, "entry_malformed", subject);
    micros(entry.payload.at);
    need(Object.hasOwn(this.bookers, kind), "entry_kind", subject, kind);
    need(window === this.windows.current?.no, "entry_window", subject, "it is booked in another window");
    need(!this.subjects.has(`${kind} ${what}`), "entry_repeated", subject, `${kind} of ${what} was booked before`);
    this.subjects.add(`${kind} ${what}`);
    this.head = entry;
    const about = this.pending;
    this.pending = null;
    need(!about || (about.kinds.split(" ").includes(kind) && about.line.id === what), "line_order", subject,
      "it is about something else");
    this.bookers[kind](entry, about);
    this.move(entry, subject);
  }

  bookUsage(entry, about) {
    need(about, "usage_entry", entry.payload.subject, "no report comes before it");
    const { line, facts, postings } = about.found;
    need(line.journal_seq === entry.seq && line.received_at === entry.payload.at, "report_entry", line.id,
      "another entry or time");
    for (const [name, wanted] of [["facts", facts], ["postings", postings]]) {
      need(same(entry.payload[name], wanted), `usage_${name}`, line.id,
        `${name} are not what the signed records make`);
    }
    this.usage.receipt(about.found, entry);
    this.demand.add(line.provider, BigInt(line.total));
  }

  move({ payload: { postings } }, subject) {
    const sums = new Map();
    for (const [id, asset, text] of postings) {
      need(/^-?[1-9]\d*$/.test(text), "entry_malformed", subject, `amount ${text}`);
      need((this.assets.get(id) ?? asset) === asset, "account_asset", id, "an account has one asset");
      this.assets.set(id, asset);
      sums.set(asset, (sums.get(asset) ?? 0n) + BigInt(text));
      this.balances.set(id, (this.balances.get(id) ?? 0n) + BigInt(text));
    }
    for (const [asset, sum] of sums) need(sum === 0n, "entry_unbalanced", subject, `${asset} adds up to ${sum}`);
    for (const [id] of postings) need(OWN.test(id) || this.balances.get(id) >= 0n, "balance_below_zero", id, subject);
  }

  finish() {
    need(this.header, "header_format", "", "the export is empty");
    need(!this.pending, "export_incomplete", "", "the last entry is missing");
    const { journal, counts } = this.header;
    need(journal.seq === this.head.seq && journal.hash === this.head.hash, "export_incomplete", `entry ${journal.seq}`,
      `the journal ends with entry ${this.head.seq}, not as the header says`);
    for (const kind of Object.keys(this.readers)) {
      need((counts[kind] ?? 0) === (this.counts[kind] ?? 0), "export_incomplete", kind,
        `the header counts ${counts[kind]}`);
    }
    for (const { kid, booked } of this.chain.slice(1)) need(booked, "service_key_entry", kid, "never booked");
    this.governance.finish();
    this.windows.finish();
    this.money.finish();
    this.disputes.finish();
    for (const [id, line] of this.accounts) {
      need((this.balances.get(id) ?? 0n) === BigInt(line.settled), "account_balance", id,
        `replayed: ${this.balances.get(id) ?? 0n}`);
      need((this.assets.get(id) ?? line.asset) === line.asset, "account_asset", id, "the journal has another asset");
    }
    for (const [id, owner] of this.windows.owners) {
      need(this.parties.get(id)?.party_kind === "consumer", "party_link", owner, "it names no consumer's account");
    }
    for (const id of this.balances.keys()) need(this.accounts.has(id), "account_missing", id, "the journal has it");
    return { ...this.counts, records: this.tree.size };
  }
}


// Lines end with a line feed alone: U+2028 within a name does not end one, as it would for node:readline.
async function* lines(path) {
  let rest = [];
  for await (const chunk of createReadStream(path)) {
    let from = 0;
    for (let to = chunk.indexOf(10); to >= 0; to = chunk.indexOf(10, from)) {
      yield Buffer.concat([...rest, chunk.subarray(from, to)]).toString("utf8");
      [rest, from] = [[], to + 1];
    }
    rest.push(chunk.subarray(from));
  }
  const last = Buffer.concat(rest).toString("utf8");
  if (last) yield last;
}

async function checkExport(path, trusted) {
  const found = new Export(trusted);
  let number = 0;
  try {
    for await (const line of lines(path)) {
      number += 1;
      found.read(JSON.parse(line));
    }
    return found.finish();
  } catch (error) {
    if (error instanceof Broken) throw error;
    throw new Broken("line_malformed", `line ${number}`, String(error));
  }
}

// The digest that each anchor of a proof or an export must carry.
async function anchorsOf(path) {
  const whole = statSync(path).size < 1 << 20 ? readFileSync(path, "utf8") : "";
  if (/^\s*\{\s*"type"/.test(whole)) {
    const { anchors, checkpoint } = JSON.parse(whole);
    return anchors.map((each) => ({ ...each, digest: digest(checkpoint.document) }));
  }
  const named = [];
  const [digests, treasuries, networks] = [new Map(), new Map(), new Map()];
  for await (const text of lines(path)) {
    const line = JSON.parse(text);
    if (line.kind === "chain") treasuries.set(line.chain, line.treasury), networks.set(line.chain, line.network);
    if (line.kind === "checkpoint") digests.set(line.window, line.digest);
    if (line.kind === "chain_order" && line.order_kind === "anchor" && line.state === "settled") named.push(line);
  }
  return named.map(({ chain, tx, ledger, window }) => ({ chain, tx, ledger, digest: digests.get(window),
    network: networks.get(chain), account: treasuries.get(chain) }));
}

const json = (path) => JSON.parse(readFileSync(path));
const MODES = {
  proof: ([path, ...trusted]) => checkProof(json(path), trusted),
  statement: ([path, ...trusted]) => checkStatement(json(path), trusted),
  receipt: ([path, jwk, body]) => checkReceipt(readFileSync(path, "utf8"), json(jwk), body && readFileSync(body)),
  anchors: async ([path, ...nodes]) => checkAnchors(await anchorsOf(path),
    Object.fromEntries(nodes.map((node) => [node.slice(0, node.indexOf("=")), node.slice(node.indexOf("=") + 1)]))),
};

async function main([mode, ...rest]) {
  try {
    const counts = Object.hasOwn(MODES, mode) ? await MODES[mode](rest) : await checkExport(mode, rest);
    console.log(JSON.stringify({ ok: true, counts }));
  } catch (error) {
    const { code = "line_malformed", subject = "", detail = String(error) } = error;
    console.log(JSON.stringify({ ok: false, code, subject, detail }));
    process.exitCode = 2;
  }
}

await main(process.argv.slice(2));
