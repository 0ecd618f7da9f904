// The governance log: who governs, what they signed, and whether it was enough (docs/reference/governance.md).
import {
  canonical, detachedSigner, digest, members, micros, need, parseCanonical, parseFraction, publicKey, readHandover, same,
  sha256,
} from "./formats.mjs";
import { inForce } from "./rating.mjs";

const SECOND = 1_000_000n;
const AHEAD = 300n * SECOND;
const DEFAULTS = {
  notice_seconds: 1209600, notice_addition_seconds: 259200, notice_correction_seconds: 259200,
  notice_council_seconds: 259200, time_lock_seconds: 86400, step: "1/5", open_for_seconds: 5184000,
  longest_pause_seconds: 259200, rates_valid_seconds: 34560000, rates_grace_seconds: 2592000,
};
const FACTS = {
  operator: "document signatures", founded: "operator policy rates signatures", published: "digest object signatures",
  council_founded: "digest signatures", proposed: "digest proposal signature", commented: "digest party proposal",
  approved: "proposal signature", vetoed: "proposal signature", withdrawn: "proposal signature", adopted: "proposal",
  stopped: "proposal", enacted: "digest object proposal subject version", lapsed: "proposal reason",
};
const rule = (holds, subject, detail) => need(holds, "governance_rule", subject, detail);
const has = (object, name) => Object.hasOwn(object, name);

export class Governance {
  constructor(world) {
    Object.assign(this, { world, size: 0, head: "00".repeat(32), heads: ["00".repeat(32)], at: -1n, stated: 0 });
    Object.assign(this, { documents: new Map(), chains: new Map(), proposals: new Map(), expected: null });
  }

  document(line) {
    need(digest(line.document) === line.digest && !this.documents.has(line.digest), "governance_document", line.digest,
      "digest is not that of the document, or it came before");
    this.documents.set(line.digest, line.document);
  }

  entry(line) {
    const subject = `governance entry ${line.no}`;
    need(line.no === this.size + 1, "governance_gap", subject, "entries are not numbered one after another");
    const payload = Buffer.from(line.payload);
    const [number, length] = [Buffer.alloc(8), Buffer.alloc(4)];
    number.writeBigUInt64BE(BigInt(line.no));
    length.writeUInt32BE(payload.length);
    const hash = sha256("CUG1", number, Buffer.from(this.head, "hex"), length, payload).toString("hex");
    need(line.previous === this.head && line.hash === hash, "governance_chain", subject, "hash or previous hash");
    const entry = parseCanonical(line.payload, "governance_rule", subject);
    members(entry, ["at", "facts", "kind"], "governance_rule", subject);
    rule(has(FACTS, entry.kind), subject, "there is no such kind");
    members(entry.facts, FACTS[entry.kind].split(" "), "governance_rule", subject);
    this.apply(entry, micros(entry.at), subject);
    Object.assign(this, { size: line.no, head: hash });
    this.heads.push(hash);
  }

  apply({ kind, facts }, at, subject) {
    rule((this.size === 0) === (kind === "founded"), subject, "the log begins with founded");
    rule(at >= this.at, subject, "it is earlier than the entry before it");
    const { expected } = this;
    const follows = kind === "adopted" || kind === "stopped";
    rule(expected ? kind === expected.kind && facts.proposal === expected.proposal : !follows, subject,
      "it is not what must follow");
    Object.assign(this, { at, expected: null });
    const found = facts.proposal === undefined || kind === "proposed" ? null : this.proposals.get(facts.proposal);
    rule(found !== undefined, subject, "there is no such proposal");
    this[kind](facts, at, subject, found);
  }

  body(name, subject) {
    need(this.documents.has(name), "governance_document", subject, `there is no document ${name}`);
    return this.documents.get(name);
  }

  founded(facts, at, subject) {
    const { kid, key } = publicKey(facts.operator);
    need(this.world.serviceKeys.has(kid), "governance_operator", subject, "not a key of the service");
    this.operator_key = { kid, key };
    for (const object of ["policy", "rates"]) this.enter(object, "", this.body(facts[object], subject), at, subject);
  }

  operator(facts, at, subject) {
    const { from } = readHandover(facts);
    rule(from === this.operator_key.kid, subject, "it does not hand over from the operator's key");
    this.operator_key = publicKey(JSON.parse(facts.document).key);
  }

  published(facts, at, subject) {
    rule(!this.council(at), subject, "a council governs");
    rule(["policy", "rates", "ruling"].includes(facts.object), subject, "the operator publishes policies, rates, rulings");
    const text = this.body(facts.digest, subject);
    this.allSigned(text, facts.signatures, [this.operator_key], 1, subject);
    if (facts.object === "ruling") {
      const ruling = JSON.parse(text);
      const from = micros(ruling.effective_from);
      rule(from <= at && from >= at - AHEAD, subject, "it does not hold from now on");
      this.enter("ruling", ruling.dispute, text, at, subject);
      return;
    }
    const before = this.chains.get(`${facts.object} `).at(-1);
    rule(micros(JSON.parse(text).effective_from) > at + AHEAD
      && micros(JSON.parse(text).effective_from) > before.from, subject, "it begins too early");
    this.enter(facts.object, "", text, at, subject);
  }

  council_founded(facts, at, subject) {
    const text = this.body(facts.digest, subject);
    rule(!this.chains.has("council "), subject, "there is a council");
    const council = this.readCouncil(text, subject);
    const keys = new Map([...council.members, this.operator_key].map((each) => [each.kid, each]));
    this.allSigned(text, facts.signatures, [...keys.values()], keys.size, subject);
    rule(council.from > at, subject, "it holds for the past");
    this.enter("council", "", text, at, subject);
  }

  proposed(facts, at, subject) {
    const text = this.body(facts.digest, subject);
    const proposal = parseCanonical(text, "governance_rule", subject);
    members(proposal, ["type", "id", "object", "document", "statement", "correction"], "governance_rule", subject);
    rule(proposal.type === "proposal/1" && proposal.id === facts.proposal && !this.proposals.has(proposal.id), subject,
      "not a new proposal");
    rule(!proposal.correction || proposal.object === "rates", subject, "correction");
    const { document, object } = proposal;
    const about = object === "participant" ? [document.party] : object === "ruling"
      ? [document.consumer, document.provider] : [];
    const found = {
      id: proposal.id, object, about, text, digest: facts.digest, document: canonical(document), at, state: "open",
      subject: { participant: document.party, ruling: document.dispute }[object] ?? "", approved: new Set(),
      vetoed: new Set(), version: document.version, parent: document.parent, from: micros(document.effective_from),
      council: object === "council" ? this.readCouncil(canonical(document), subject) : null,
    };
    const voices = this.voices(found, at, subject);
    found.proposer = this.signed(facts.signature, text, voices, "proposal+jws", subject);
    this.next(found, subject);
    Object.assign(found, this.demand(proposal, found, at, subject));
    if (found.notice) this.inTime(found, at, subject);
    else rule(found.from >= at - AHEAD, subject, "it holds for the past");
    this.proposals.set(found.id, found);
  }

  commented(facts, at, subject, found) {
    rule(["open", "adopted"].includes(found.state), subject, "the proposal is closed");
  }

  approved(facts, at, subject, found) {
    rule(found.state === "open", subject, "the proposal is closed");
    const kid = this.decided("approve", facts, at, subject, found);
    rule(!found.approved.has(kid) && !found.vetoed.has(kid), subject, "this key has decided");
    this.next(found, subject);
    rule(at < found.at + this.seconds(at, "open_for"), subject, "its time for approvals is over");
    if (found.notice) this.inTime(found, at, subject);
    found.approved.add(kid);
    const count = (keys) => keys.filter((each) => found.approved.has(each.kid)).length;
    const { thresholds } = this.council(at);
    const enough = count(this.voices(found, at, subject)) >= thresholds[found.threshold]
      && (!found.council || count(found.council.members) >= found.council.thresholds.ordinary);
    if (enough) this.expected = { kind: "adopted", proposal: found.id };
  }

  adopted(facts, at, subject, found) {
    Object.assign(found, { state: "adopted", changed: at });
  }

  vetoed(facts, at, subject, found) {
    rule(["open", "adopted"].includes(found.state), subject, "the proposal is closed");
    const kid = this.decided("veto", facts, at, subject, found);
    rule(!found.vetoed.has(kid), subject, "this key has decided");
    found.approved.delete(kid);
    found.vetoed.add(kid);
    const count = this.voices(found, at, subject).filter((each) => found.vetoed.has(each.kid)).length;
    if (count >= this.council(at).thresholds.veto) this.expected = { kind: "stopped", proposal: found.id };
  }

  stopped(facts, at, subject, found) {
    found.state = "vetoed";
  }

  withdrawn(facts, at, subject, found) {
    rule(found.state === "open", subject, "the proposal is closed");
    rule(this.decided("withdraw", facts, at, subject, found) === found.proposer, subject, "by another");
    found.state = "withdrawn";
  }

  enacted(facts, at, subject, found) {
    rule(found.state === "adopted" && this.mayEnact(found, at), subject, "it is not due");
    const { object, version } = found;
    const wanted = { proposal: found.id, object, subject: found.subject, version, digest: digest(found.document) };
    rule(same(facts, wanted), subject, "it enacts another document");
    this.enter(object, found.subject, found.document, at, subject);
    found.state = "enacted";
  }

  lapsed(facts, at, subject, found) {
    const last = this.chains.get(`${found.object} ${found.subject}`)?.at(-1);
    const reason = found.state === "adopted"
      ? found.notice && at >= found.changed + found.lock && !this.mayEnact(found, at) && "too_late"
      : found.state === "open" && ((last && last.version >= found.version && "superseded")
        || (at >= found.at + this.seconds(at, "open_for") && "expired")
        || (found.notice && found.from < at + found.notice && "notice"));
    rule(reason && reason === facts.reason, subject, "it can still be enacted");
    found.state = "lapsed";
  }

  // --- rules ---

  rules(at) {
    return { ...DEFAULTS, ...(inForce(this.chains.get("policy "), at).content.governance ?? {}) };
  }

  seconds(at, name) {
    return BigInt(this.rules(at)[`${name}_seconds`]) * SECOND;
  }

  council(at) {
    return inForce(this.chains.get("council ") ?? [], at)?.council ?? null;
  }

  readCouncil(text, subject) {
    const { members: listed, thresholds, effective_from: from } = JSON.parse(text);
    const found = listed.map((each) => ({ ...publicKey(each.key), since: micros(each.since), until: micros(each.until),
      interests: each.interests.map((interest) => interest.party) }));
    const { ordinary, higher, pause, veto } = thresholds;
    rule(new Set(found.map((each) => each.kid)).size === found.length, subject, "one key twice");
    rule(ordinary >= 2 && higher >= ordinary && higher <= found.length && pause >= 1 && pause < ordinary && veto >= 1
      && veto <= ordinary, subject, "thresholds");
    return { members: found, thresholds, from: micros(from) };
  }

  voices(found, at, subject) {
    const council = this.council(at);
    rule(council, subject, "no council governs");
    return council.members.filter((each) => each.since <= at && (at < each.until || found.object === "council")
      && !each.interests.some((party) => found.about.includes(party)));
  }

  signed(value, text, voices, typ, subject) {
    const [head, empty, signature, more] = value.split(".");
    const keyOf = (kid) => voices.find((each) => each.kid === kid)?.key;
    const kid = empty === "" && more === undefined && detachedSigner(head, signature ?? "", Buffer.from(text), keyOf,
      typ);
    rule(kid, subject, "not signed by a key that has a voice in it");
    return kid;
  }

  decided(decision, facts, at, subject, found) {
    const text = canonical({ type: "decision/1", decision, proposal: found.id, digest: found.digest });
    const joining = found.council && decision === "approve" ? found.council.members : [];
    return this.signed(facts.signature, text, [...this.voices(found, at, subject), ...joining], "decision+jws", subject);
  }

  allSigned(text, signatures, keys, threshold, subject) {
    const keyOf = (kid) => keys.find((each) => each.kid === kid)?.key;
    const signers = signatures.map((each) => detachedSigner(each.protected, each.signature, Buffer.from(text), keyOf));
    rule(new Set(signers.filter(Boolean)).size >= threshold, subject, "too few have signed");
  }

  next(found, subject) {
    const last = this.chains.get(`${found.object} ${found.subject}`)?.at(-1);
    rule(found.version === (last?.version ?? 0) + 1, subject, "not the next version");
    rule(found.parent === (last?.digest ?? null), subject, "not the digest of the version before");
    const waits = [...this.proposals.values()].some((each) => each.state === "adopted" && each.object === found.object
      && each.subject === found.subject);
    rule(!waits, subject, "another one is adopted");
  }

  inTime(found, at, subject) {
    const last = this.chains.get(`${found.object} ${found.subject}`)?.at(-1);
    rule(found.from > at && found.from > (last?.from ?? -1n), subject, "it holds for the past");
    rule(found.from >= at + found.notice, subject, "the notice is too short");
  }

  mayEnact(found, at) {
    if (at < found.changed + found.lock) return false;
    if (!found.notice) return at >= found.from;
    return found.from > at + (found.object === "rates" ? AHEAD : 0n);
  }

  demand({ object, document, correction }, found, at, subject) {
    const lock = this.seconds(at, "time_lock");
    if (object === "rates") {
      const { changed, beyond } = changes(this.chains.get("rates ").at(-1).content, document,
        parseFraction(this.rules(at).step));
      const name = correction ? "notice_correction" : changed ? "notice" : "notice_addition";
      return { threshold: beyond ? "higher" : "ordinary", notice: this.seconds(at, name), lock };
    }
    if (object === "policy") {
      const before = { ...DEFAULTS, ...(this.chains.get("policy ").at(-1).content.governance ?? {}) };
      const after = { ...DEFAULTS, ...(document.governance ?? {}) };
      const notice = BigInt(before.notice_seconds) * SECOND;
      return { threshold: same(before, after) ? "ordinary" : "higher", notice, lock: BigInt(before.time_lock_seconds)
        * SECOND };
    }
    if (object === "council") return { threshold: "ordinary", notice: this.seconds(at, "notice_council"), lock };
    if (object === "pause") {
      const longest = this.seconds(at, "longest_pause");
      rule(micros(document.until) <= found.from + longest && micros(document.until) > found.from, subject, "too long");
      const last = this.chains.get("pause ")?.at(-1)?.content;
      const rested = !last || found.from >= micros(last.until) + longest;
      return { threshold: document.stop.length && rested ? "pause" : "ordinary", notice: 0n, lock: 0n };
    }
    return { threshold: "ordinary", notice: 0n, lock: 0n };
  }

  enter(object, name, text, at, subject) {
    const chain = `${object} ${name}`;
    const list = this.chains.get(chain) ?? this.chains.set(chain, []).get(chain);
    const content = parseCanonical(text, "governance_rule", subject);
    rule(content.version === list.length + 1 && (content.parent ?? null) === (list.at(-1)?.digest ?? null), subject,
      "not the next version");
    list.push({ at, version: content.version, digest: digest(text), from: micros(content.effective_from), content,
      council: object === "council" ? this.readCouncil(text, subject) : null });
  }

  // What a checkpoint states, when the log has it and no checkpoint before had more; else what it has.
  at_size({ size }) {
    const known = size >= this.stated && size <= this.size;
    if (known) this.stated = size;
    return known ? { size, head: this.heads[size] } : { size: this.size, head: this.head };
  }

  finish() {
    rule(!this.expected, "the governance log", "something must follow its last entry");
    for (const [object, list] of [["policy", this.world.policies], ["rates", this.world.tables]]) {
      const decided = this.chains.get(`${object} `) ?? [];
      for (const each of [...decided, ...list]) {
        need(decided[each.version - 1]?.digest === list[each.version - 1]?.digest, "governance_missing",
          `${object} ${each.version}`, "log and documents have different versions");
        const { published } = list[each.version - 1];
        need(published === undefined || published === decided[each.version - 1].at, "rate_table_published",
          `${object} ${each.version}`, "the log has another time");
      }
    }
  }
}

// Whether a rate table changes what somebody pays already, and whether by more than the step.
function changes(before, after, [n, d]) {
  let [changed, beyond] = [false, false];
  const moved = (was, will) => {
    changed = true;
    const apart = will === null || was === null ? null : was > will ? was - will : will - was;
    if (apart === null || apart * d > was * n) beyond = true;
  };
  const known = ["aliases", "base", "effective_from", "meters", "models", "parent", "sources", "type", "version"];
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    if (!known.includes(name) && !same(before[name] ?? null, after[name] ?? null)) moved(null, null);
  }
  for (const [name, meter] of Object.entries(before.meters)) {
    if (!has(after.meters, name) || !same(meter, after.meters[name])) moved(null, null);
  }
  const rate = (table, { rates }, meter) => {
    for (let at = meter; at != null; at = table.meters[at]?.parent) if (has(rates, at)) return BigInt(rates[at]);
    return meter === "requests" ? 0n : null;
  };
  const target = (table, name) => (has(table.models, name) ? name : has(table.aliases, name) ? table.aliases[name]
    : null);
  for (const name of [...Object.keys(before.models), ...Object.keys(before.aliases)]) {
    const [old, now] = [target(before, name), target(after, name)];
    if (now === null) moved(null, null);
    if (now === null || (now === old && name !== old)) continue;
    for (const [tier, was] of Object.entries(before.models[old].tiers)) {
      const will = after.models[now].tiers[tier];
      if (!will) { moved(null, null); continue; }
      const terms = ({ context = "whole", hours = [], minimum = 0 }) => ({ context, hours, minimum });
      if (!same(terms(was), terms(will))) moved(null, null);
      for (const { above_input_tokens: above } of [...was.bands, ...will.bands]) {
        const selected = ({ bands, context }) => {
          const band = bands.filter((each) => each.above_input_tokens <= above).at(-1);
          return context === "excess" ? { rates: { ...bands[0].rates, ...band.rates } } : band;
        };
        for (const meter of new Set([...Object.keys(before.meters), "requests"])) {
          const [one, other] = [rate(before, selected(was), meter), rate(after, selected(will), meter)];
          if (one !== null && one !== other) moved(one, other);
        }
      }
    }
  }
  return { changed, beyond };
}
