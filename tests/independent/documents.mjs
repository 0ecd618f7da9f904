// What a party holds in its hand: a statement/1 (docs/reference/statement.md) and a receipt/1 (usage.md), offline.
import { compactPayload, detachedSigner, digest, documentSigned, micros, need, parseCanonical, parseFraction, publicKey,
  same, unbase64 } from "./formats.mjs";
import { busy, readStep } from "./demand.mjs";
import { chain, checkProof, keysOf } from "./proof.mjs";
import { due } from "./surcharges.mjs";
import { ask, charge, inForce, madeAt, multiplier } from "./rating.mjs";

const MICRO = 1_000_000n;
const big = (text) => BigInt(text);

// The content of a receipt that the key signed; with `body`, also that it is about these bytes.
export function checkReceipt(token, jwk, body) {
  const { kid, key } = publicKey(jwk);
  const payload = compactPayload(token.trim(), (found) => (found === kid ? key : null), "receipt+jws");
  need(payload !== null, "receipt_signature", kid, "not a receipt that this key signed");
  const found = parseCanonical(payload, "receipt_type", kid);
  need(found.type === "receipt/1", "receipt_type", kid, "not a receipt/1");
  need(body === undefined || found.digest === digest(body), "receipt_mismatch", found.report, "about another body");
  return found;
}

export function checkStatement(found, trusted) {
  need(found.type === "statement/1", "statement_type", found.type, "not a statement/1");
  const { kid, key } = publicKey(found.service_key);
  const kids = chain(found.handovers, kid);
  need(!trusted.length || kids.some((each) => trusted.includes(each)), "key_not_trusted", kid, "not trusted");
  const keys = keysOf(found.handovers).set(kid, key);
  const tables = found.rate_tables.map((line) => readTable(line, keys)).sort((a, b) => a.version - b.version);
  if (found.checkpoint) underCheckpoint(found, tables, (each) => (each === kid ? key : null));
  const offers = readOffers(found.offers);
  found.steps = found.demands.map((line) => readStep(line, (each) => keys.get(each)));
  const charged = found.records.map((entry) => ({ ...entry, pico: rated(found, entry, tables, offers) }));
  inOrder(found, charged);
  const [posted, sum] = pairs(found, charged);
  account(found, posted);
  position(found, sum, trusted);
  return { records: charged.length, posted: String(sum), closing: found.closing };
}

function readTable(line, keys) {
  const document = parseCanonical(line.document, "rate_table_malformed", line.version);
  need(document.type === "rates/1" && document.version === line.version, "rate_table_malformed", line.version, "");
  need(digest(line.document) === line.digest, "rate_table_digest", line.version, "digest is not that of the document");
  documentSigned(line.document, line.signatures, (kid) => keys.get(kid), "rate_table_signature", line.version);
  return { version: line.version, digest: line.digest, from: micros(document.effective_from), document };
}

function underCheckpoint(found, tables, keyOf) {
  const { document: text, digest: stated, signatures, window } = found.checkpoint;
  documentSigned(text, signatures, keyOf, "checkpoint_signature", window);
  need(digest(text) === stated, "checkpoint_digest", window, "digest is not that of the document");
  const document = parseCanonical(text, "checkpoint_canonical", window);
  for (const table of tables) {
    const known = document.rates.find(({ version }) => version === table.version);
    need(known?.digest === table.digest, "rate_table_digest", table.version, "not the table that was anchored");
  }
  for (const name of ["window", "opened_at", "closed_at", "first_seq", "last_seq"]) {
    need(found[name] === document[name], `statement_${name}`, window, `${name} is ${document[name]}`);
  }
}

function readOffers(lines) {
  const offers = new Map();
  for (const { provider, version, body, signature, jwk } of lines) {
    const bytes = unbase64(body, "offer_malformed", provider);
    const { kid, key } = publicKey(jwk);
    const [head, , tail] = signature.split(".");
    const signer = detachedSigner(head, tail ?? "", bytes, (each) => (each === kid ? key : null), "offer+jws");
    need(signer === kid, "offer_signature", provider, "not this key's signature of the body");
    const document = JSON.parse(bytes);
    need(same([document.type, document.provider, document.version], ["offer/1", provider, version]), "offer_malformed",
      provider, "not the provider's offer");
    const earlier = offers.get(provider) ?? [];
    offers.set(provider, [...earlier, { from: micros(document.effective_from), document }].sort((a, b) => (
      a.from < b.from ? -1 : 1)));
  }
  return offers;
}

// The charge of a record again; one that names a hold may be charged less, in whole microCU.
function rated({ party, standings, steps }, { record, provider, rates, charge_pico: stated }, tables, offers) {
  const at = micros(record.at);
  const table = inForce(tables, record.hold === undefined ? at : madeAt(record.hold) ?? at);
  need(table?.version === rates, "record_rates", record.id, "not the table that was in force");
  const offer = inForce(offers.get(provider) ?? [], at);
  const tier = standings.find(({ consumer, day }) => consumer === record.consumer && day.slice(0, 10) === record.at.slice(0, 10));
  const { pico } = charge(table.document, record, [...(offer ? [ask(offer.document, table.document, record)] : []),
    busy(steps, provider, record.hold), ...(tier ? [multiplier(tier.multiplier)] : [])]);
  const bounded = record.hold !== undefined && pico !== undefined && big(stated) < pico && big(stated) % MICRO === 0n;
  need(bounded || String(pico) === stated, "record_charge", record.id, `${pico} is its charge`);
  need(party === provider || party === record.consumer, "record_foreign", record.id, "it is not this party's");
  return big(stated);
}

function inOrder({ first_seq: first, last_seq: last }, charged) {
  charged.forEach(({ journal_seq: seq, line }, at) => {
    const { journal_seq: before, line: above } = charged[at - 1] ?? { journal_seq: 0, line: -1 };
    need(seq > before || (seq === before && line > above), "record_order", seq, "out of order, or twice");
    need(first <= seq && seq <= last, "record_window", seq, "it is outside of the window");
  });
  const ids = new Set(charged.map(({ provider, record }) => `${provider} ${record.id}`));
  need(ids.size === charged.length, "record_repeated", "records", "an id comes twice");
}

// What each report posts, by journal number, and all of it: report by report from what each pair carried in.
function pairs(found, charged) {
  const sums = new Map(found.pairs.map((pair) => [`${pair.consumer} ${pair.provider}`, { pair, records: 0, pico: 0n,
    posted: 0n, carry: BigInt(pair.carried_in) }]));
  const groups = new Map();
  for (const { journal_seq: seq, provider, record, pico } of charged) {
    const name = `${record.consumer} ${provider}`;
    const sum = sums.get(name);
    need(sum, "pair_missing", name, "it has records and no figures");
    Object.assign(sum, { records: sum.records + 1, pico: sum.pico + pico });
    const place = `${seq} ${name}`;
    groups.set(place, { seq, sum, pico: (groups.get(place)?.pico ?? 0n) + pico });
  }
  const posted = new Map();
  for (const { seq, sum, pico } of groups.values()) {
    const whole = (sum.carry + pico) / MICRO;
    Object.assign(sum, { carry: (sum.carry + pico) % MICRO, posted: sum.posted + whole });
    posted.set(seq, (posted.get(seq) ?? 0n) + whole);
  }
  for (const [name, { pair, records, pico, posted: whole, carry }] of sums) {
    need(pair.records === records, "pair_records", name, `${records} records`);
    need(pair.pico === String(pico), "pair_pico", name, `${pico} picoCU`);
    need(pair.posted === String(whole), "pair_posted", name, `${whole} microCU`);
    need(BigInt(pair.carried_out) === carry && pair.carried_in < MICRO, "pair_carry", name, `${carry} is carried out`);
  }
  return [posted, [...sums.values()].reduce((all, each) => all + each.posted, 0n)];
}

function account(found, posted) {
  const sign = found.party_kind === "consumer" ? -1n : 1n;
  const expected = { usage: new Map(), deposit: new Map(), withdrawal_planned: new Map() };
  for (const [seq, amount] of posted) if (amount) expected.usage.set(seq, sign * amount);
  for (const { id, amount, credited, journal_seq: seq, micro_per_unit: worth } of found.deposits) {
    const [n, d] = parseFraction(worth);
    need(big(credited) === (big(amount) * n) / d, "deposit_credit", id, "not the worth, rounded down");
    expected.deposit.set(seq, big(credited));
  }
  const fees = new Map();
  for (const { id, amount, fee, journal_seq: seq, micro, micro_per_unit: worth } of found.withdrawals) {
    const [[n, d], units] = [parseFraction(worth), big(amount)];
    const right = (units * n + d - 1n) / d === big(micro) && (big(micro) * d) / n === units;
    need(right, "withdrawal_amount", id, "not what its microCU pay for");
    expected.withdrawal_planned.set(seq, -big(micro));
    if (big(fee)) fees.set(id, -big(fee));
  }
  const given = new Map();
  for (const { id, amount, award, journal_seq: seq, penalty } of found.disputes) {
    const most = found.party_kind === "consumer" ? [0n, big(award)] : [-big(award) - big(penalty), 0n];
    need(most[0] <= big(amount) && big(amount) <= most[1], "dispute_amount", id, "more than was awarded");
    if (big(amount)) given.set(seq, big(amount));
  }
  const surcharge = new Map();
  const policies = found.policies.map((line) => ({ document: parseCanonical(line.document, "value_malformed", line.version) }))
    .map(({ document }) => ({ document, from: micros(document.effective_from) })).sort((a, b) => (a.from < b.from ? -1 : 1));
  for (const line of found.surcharges.filter((each) => each.amount !== undefined)) {
    const right = due(policies, line);
    need(String(right) === line.due && 0n < big(line.amount) && big(line.amount) <= right, "surcharge_due", line.day, `${right} is due`);
    surcharge.set(line.journal_seq, -big(line.amount));
  }
  Object.assign(expected, { dispute_ruled: given, dispute_paid: given, surcharge });
  let [balance, last] = [big(found.opening), 0];
  for (const { journal_seq: seq, kind, subject, amount } of found.postings) {
    need(seq > last, "posting_order", seq, "out of order");
    const known = kind === "withdrawal_fee" ? fees : expected[kind];
    const name = kind === "withdrawal_fee" ? subject : seq;
    need(!known || (known.get(name) ?? 0n) === big(amount), "posting_amount", seq, "not what was recomputed");
    known?.delete(name);
    [balance, last] = [balance + big(amount), seq];
  }
  for (const left of [...Object.values(expected), fees]) {
    need(left.size === 0, "posting_missing", [...left.keys()][0], "it was recomputed and is not stated");
  }
  need(found.closing === String(balance), "statement_closing", found.party, `${balance} is left`);
}

function position(found, posted, trusted) {
  const { position: stated, position_proof: proof } = found;
  if (!stated) {
    need(posted === 0n, "position_missing", found.party, "there is usage and no position");
    return;
  }
  const { earned, linked, net, netted, party, payout, salt, spent } = stated;
  const side = found.party_kind === "consumer" ? spent : earned;
  const [e, s] = [big(earned), big(spent)];
  const right = side === String(posted) && net === String(e - s) && big(netted) === (linked ? (e < s ? e : s) : 0n);
  need(right, "position_mismatch", party, "its figures are not those of the pairs");
  const held = big(stated.tranche);
  need(held >= 0n && held <= e - big(netted) && held > 0n === (stated.held_until !== null), "position_tranche", party,
    "what is held back is not a part of what was earned");
  const paid = found.payouts.reduce((all, each) => all + big(each.micro), 0n);
  need(paid === 0n || paid === big(payout), "payout_mismatch", party, "payouts are not the position's");
  if (!proof) return;
  checkProof(proof, trusted);
  need(same(JSON.parse(proof.leaf), { earned, net, party, payout, salt, spent, window: found.window })
    && proof.checkpoint.document === found.checkpoint.document, "position_mismatch", party, "the proof is another's");
}
