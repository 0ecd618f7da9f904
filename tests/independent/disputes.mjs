// Disputes: who said what in time, what was awarded and why, what was given back (docs/reference/disputes.md).
import { detachedSigner, micros, need, same } from "./formats.mjs";
import { ask, charge, inForce } from "./rating.mjs";

const SECOND = 1_000_000n;
const MILLION = 1_000_000n;
const DEFAULTS = {
  open_for_seconds: 1209600, answer_within_seconds: 259200, rule_within_seconds: 1209600, hold_back: 0,
  penalty_share: 1000000, penalty_most: "222222222222", most_open: 100,
};
const FROM = {
  empty_answer: ["open"], price_mismatch: ["open"], accepted: ["open"], no_answer: ["open"], council: ["answered"],
  no_ruling: ["answered"], consumer: ["open", "answered"],
};
const GROUNDS = ["empty", "price", "count", "not_requested", "not_received"];
const least = (...amounts) => amounts.reduce((one, other) => (one < other ? one : other));
const has = (object, name) => Object.hasOwn(object, name);
const members = (facts, names, subject) => need(same(Object.keys(facts).sort(), [...names].sort()), "dispute_facts",
  subject, `its facts are not ${[...names].sort()}`);

export class Disputes {
  constructor(world) {
    Object.assign(this, { world, all: new Map(), records: new Map(), pairs: new Map(), about: new Set(),
      events: [] });
  }

  rules(at) {
    return { ...DEFAULTS, ...(inForce(this.world.policies, at)?.document.disputes ?? {}) };
  }

  line(line) {
    need(!this.all.has(line.id), "dispute_repeated", line.id, "twice");
    const pair = `${line.provider} ${line.consumer} ${line.window}`;
    this.all.set(line.id, { line, pair, state: "", award: 0n, penalty: 0n, paid: 0n, fined: 0n, payments: 0 });
    if (line.record !== null) this.records.set(`${line.provider} ${line.record}`, null);
    if (!this.pairs.has(pair)) this.pairs.set(pair, { posted: 0n, awarded: 0n });
  }

  // A charged record and what a pair has posted, while they are read.
  charged(provider, record, found, report, window) {
    const key = `${provider} ${record.id}`;
    if (this.records.has(key)) {
      this.records.set(key, { record, pico: found.pico, version: found.version, seq: report.journal_seq,
        window: window.no });
    }
  }

  posted(provider, consumer, window, amount) {
    const pair = this.pairs.get(`${provider} ${consumer} ${window}`);
    if (pair) pair.posted += amount;
  }

  of(id) {
    const found = this.all.get(id);
    need(found, "dispute_missing", id, "there is no such dispute");
    return found;
  }

  signedBy(provider, value, text, at, typ, subject) {
    const [head, empty, signature, more] = value.split(".");
    const kid = empty === "" && more === undefined && detachedSigner(head, signature ?? "", Buffer.from(text),
      (each) => this.world.keys.get(each)?.key, typ);
    const key = kid && this.world.keys.get(kid);
    need(key && key.party === provider && key.from <= at && (key.until === null || at < key.until),
      "dispute_signature", subject, "not signed by a key that was the provider's then");
  }

  opened({ seq, payload: { subject, facts, postings, at: text } }) {
    const found = this.of(subject);
    const { line } = found;
    const at = micros(text);
    const key = line.record === null ? found.pair : `${line.provider} ${line.record}`;
    need(found.state === "" && !this.about.has(key), "dispute_repeated", subject, "opened before");
    need(same(postings, []), "dispute_postings", subject, "an opening posts nothing");
    const told = [facts.consumer, facts.provider, facts.window, facts.record ?? null];
    need(same(told, [line.consumer, line.provider, line.window, line.record]), "dispute_facts", subject, "another charge");
    const seen = line.record === null ? null : this.records.get(key);
    const names = ["consumer", "provider", "window", "ground", "charged", "claimed", "evidence", "flags", "answer_by"];
    members(facts, seen ? [...names, "record", "entry", ...["counts", "offer"].filter((name) => has(facts, name))]
      : names, subject);
    const { posted, awarded } = this.pairs.get(found.pair);
    let [charged, much] = [posted, posted];
    if (line.record === null) {
      need(this.world.windows.all.get(line.window)?.nettedAt, "dispute_facts", subject, "its window is not netted");
      need(same(facts.flags, []), "dispute_facts", subject, "flags");
    } else {
      need(seen && seen.window === line.window && seen.record.consumer === line.consumer && seen.seq === facts.entry,
        "dispute_facts", subject, "no such charge");
      need(same(facts.flags, seen.record.flags ?? []), "dispute_facts", subject, "flags");
      charged = seen.pico / MILLION;
      much = this.tooMuch(found, seen, facts, subject) / MILLION;
    }
    need(GROUNDS.includes(facts.ground) && facts.charged === String(charged), "dispute_facts", subject, "ground or charge");
    const claimed = BigInt(facts.claimed);
    need(claimed > 0n && claimed <= least(charged, much, posted - awarded), "dispute_claim", subject, "too much is claimed");
    const window = this.world.windows.all.get(line.window);
    const open = window.closed_at === null || window === this.world.windows.current;
    const until = open ? null : micros(window.closed_at) + BigInt(this.rules(micros(window.closed_at)).open_for_seconds)
      * SECOND;
    need(open || at < until, "dispute_time", subject, "opened too late");
    const by = at + BigInt(this.rules(at).answer_within_seconds) * SECOND;
    need(micros(facts.answer_by) === by, "dispute_time", subject, "answer_by");
    Object.assign(found, { state: "open", claimed, by, from: seq, ground: facts.ground, seen, key });
    this.about.add(key);
  }

  // What the consumer's own words make of the charge; and the rule that ends the dispute at once.
  tooMuch(found, { record, pico, version }, facts, subject) {
    const { provider } = found.line;
    const at = micros(record.at);
    const table = this.world.tables.find((each) => each.version === version).document;
    const published = this.world.offers.get(provider) ?? [];
    const after = [this.world.busy(provider, record), this.world.standing(record.consumer, at)];
    const rated = (counted, offer) => charge(table, counted, [...(offer ? [ask(offer, table, counted)] : []), ...after]);
    const above = (other) => (pico > other ? pico - other : 0n);
    const asked = ["chat", "generate_content", "text_completion"].includes(record.operation)
      && ["completed", "truncated"].includes(record.outcome);
    const output = Object.keys(record.meters).some((meter) => meter.startsWith("output_") && record.meters[meter] > 0);
    if (facts.ground === "price") found.rule = "price_mismatch";
    else if (facts.ground === "empty" && asked && !output) found.rule = "empty_answer";
    need(facts.ground !== "price" || has(facts, "offer"), "dispute_facts", subject, "no offer");
    if (has(facts, "offer")) {
      const { body, signature } = facts.offer;
      this.signedBy(provider, signature, body, at, "offer+jws", subject);
      const offer = JSON.parse(body);
      need(offer.type === "offer/1" && offer.provider === provider, "dispute_facts", subject, "not the provider's offer");
      const known = inForce(published, at);
      const held = micros(offer.effective_from) <= at && !(known && known.document.version > offer.version)
        && !published.some((each) => same(each.document, offer));
      return held ? above(rated(record, offer).pico) : 0n;
    }
    if (!has(facts, "counts")) return pico;
    const counted = rated({ ...record, meters: facts.counts }, inForce(published, at)?.document);
    need(!counted.code, "dispute_claim", subject, `what was counted can't be rated: ${counted.code}`);
    return above(counted.pico);
  }

  answered({ payload: { subject, facts, postings, at: text } }) {
    const found = this.of(subject);
    const at = micros(text);
    need(found.state === "open" && !found.accepts && at < found.by, "dispute_time", subject, "not to be answered now");
    need(same(postings, []), "dispute_postings", subject, "an answer posts nothing");
    this.signedBy(found.line.provider, facts.signature, facts.document, at, "answer+jws", subject);
    const said = JSON.parse(facts.document);
    need(said.type === "answer/1" && said.dispute === subject && ["accept", "contest"].includes(said.answer),
      "dispute_signature", subject, "not an answer to this dispute");
    found.accepts = said.answer === "accept";
    members(facts, found.accepts ? ["document", "signature"] : ["document", "signature", "rule_by"], subject);
    if (found.accepts) return;
    Object.assign(found, { state: "answered", by: at + BigInt(this.rules(at).rule_within_seconds) * SECOND });
    need(micros(facts.rule_by) === found.by, "dispute_time", subject, "rule_by");
  }

  ruled(entry) {
    const { payload: { subject, facts, at: text } } = entry;
    const found = this.of(subject);
    const at = micros(text);
    const { cause } = facts;
    need(has(FROM, cause) && FROM[cause].includes(found.state), "dispute_entry", subject, `${found.state}, ${cause}`);
    members(facts, ["cause", "corrects", "award", "penalty", ...(cause === "council" ? ["ruling"] : [])], subject);
    const decided = found.rule ?? (found.accepts ? "accepted" : null);
    const automatic = ["empty_answer", "price_mismatch", "accepted"].includes(cause);
    need(decided === null ? !automatic : cause === decided, "dispute_cause", subject, `it is decided by ${decided}`);
    const late = ["no_answer", "no_ruling"].includes(cause);
    need(automatic || cause === "consumer" || late === (at >= found.by), "dispute_time", subject, "too early or too late");
    let [asked, penalty] = [["no_ruling", "consumer"].includes(cause) ? 0n : found.claimed, 0n];
    if (cause === "council") {
      const { consumer, provider } = found.line;
      const ruling = (this.world.governance.chains.get(`ruling ${subject}`) ?? []).find((each) => each.at === at
        && each.digest === facts.ruling && each.content.consumer === consumer && each.content.provider === provider);
      need(ruling, "dispute_cause", subject, "the log has no such ruling at that time");
      [asked, penalty] = [BigInt(ruling.content.award), BigInt(ruling.content.penalty)];
    }
    const pair = this.pairs.get(found.pair);
    const left = least(asked, found.claimed, pair.posted - pair.awarded);
    found.award = left > 0n ? left : 0n;
    const rules = this.rules(at);
    found.penalty = least(penalty, (found.award * BigInt(rules.penalty_share)) / MILLION, BigInt(rules.penalty_most));
    need(same([facts.award, facts.penalty], [String(found.award), String(found.penalty)]), "dispute_award", subject,
      `${found.award} and ${found.penalty}`);
    const corrects = found.seen ? found.seen.seq : `win_${found.line.window}`;
    need(facts.corrects === corrects, "dispute_facts", subject, "it corrects another entry");
    pair.awarded += found.award;
    this.events.push({ seq: entry.seq, party: found.line.provider, award: found.award + found.penalty, drawn: 0n });
    this.give(found, entry);
    found.state = cause === "consumer" ? "withdrawn" : found.award > 0n ? "upheld" : "rejected";
    if (cause === "consumer") this.about.delete(found.key);
    found.until = entry.seq;
  }

  paid(entry) {
    const [id, number] = entry.payload.subject.split("/");
    const found = this.of(id);
    found.payments += 1;
    need(number === String(found.payments) && same(entry.payload.facts, {}), "dispute_entry", id, "payments are numbered");
    need(this.give(found, entry) > 0n, "dispute_postings", id, "it pays nothing");
  }

  // From the provider to the consumer first, then to the fees, never more than is owed.
  give(found, { seq, payload: { subject, postings } }) {
    const { consumer, provider } = found.line;
    const amount = (id) => BigInt(postings.find(([account]) => account === id)?.[2] ?? "0");
    const [award, fine] = [amount(consumer), amount("fees/CU")];
    const legs = [[provider, -award - fine], [consumer, award], ["fees/CU", fine]];
    const wanted = legs.filter(([, value]) => value !== 0n).map(([id, value]) => [id, "CU", String(value)]);
    found.paid += award;
    found.fined += fine;
    const within = award >= 0n && fine >= 0n && found.paid <= found.award && found.fined <= found.penalty
      && (found.fined === 0n || found.paid === found.award);
    need(within && same(postings, wanted), "dispute_postings", subject, "not what is owed");
    this.events.push({ seq, party: provider, award: 0n, drawn: award + fine });
    return award + fine;
  }

  // What disputes leave of a provider's balance at the close of a window for a payout: `due` is the balance then.
  after(due, window, party) {
    let left = due;
    for (const { seq, party: who, award, drawn } of this.events) {
      if (who !== party) continue;
      if (seq < window.nettedAt) left -= award;
      if (seq <= window.last_seq) left += drawn;
    }
    return left - this.heldBack(window, party);
  }

  heldBack(window, party) {
    let kept = 0n;
    for (const other of this.world.windows.all.values()) {
      const position = other.no <= window.no && other.positions.find((line) => line.party === party);
      if (!position || position.tranche === "0") continue;
      const disputed = [...this.all.values()].some((each) => each.line.provider === party && each.line.window === other.no
        && each.from < window.nettedAt && !(each.until < window.nettedAt));
      if (disputed || micros(position.held_until) > micros(window.closed_at)) kept += BigInt(position.tranche);
    }
    return kept;
  }

  // The tranche of a position, by the policy at the close of its window.
  tranche(window, line, { earned, netted }) {
    const rules = this.rules(micros(window.closed_at));
    const tranche = ((earned - netted) * BigInt(rules.hold_back)) / MILLION;
    const until = micros(window.closed_at) + BigInt(rules.open_for_seconds) * SECOND;
    need(line.tranche === String(tranche) && (tranche ? micros(line.held_until) === until : line.held_until === null),
      "position_tranche", line.party, `${tranche} is held back`);
  }

  finish() {
    for (const { line, state, award, penalty, paid, fined, rule, accepts } of this.all.values()) {
      const told = [line.state, line.award, line.penalty, line.paid, line.penalty_paid];
      need(same(told, [state, ...[award, penalty, paid, fined].map(String)]), "dispute_state", line.id, `it is ${state}`);
      need(state !== "open" || !(rule || accepts), "dispute_entry", line.id, "it was decided and did not end");
    }
    for (const [key] of this.world.governance.chains) {
      const [object, id] = key.split(" ");
      const over = object !== "ruling" || ["upheld", "rejected", "withdrawn"].includes(this.all.get(id)?.state);
      need(over, "dispute_entry", id, "it was ruled on, and nothing followed");
    }
  }
}
