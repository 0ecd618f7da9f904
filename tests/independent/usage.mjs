// Usage reports: signatures, the chain of bodies, every charge, carries, postings, receipts and leaves.
import {
  canonical, compactPayload, detachedSigner, digest, leafHash, micros, need, same, sha256, unbase64,
} from "./formats.mjs";
import { assess } from "./rating.mjs";

const RATED = new Set(`time_in_future time_too_old id_time_mismatch rates_not_in_force rates_mismatch
  unknown_model unknown_tier unknown_meter unpriced_meter subset_above_whole charge_too_large`.split(/\s+/));
const JUDGED = new Set(["duplicate_record", "unknown_consumer", "consumer_suspended", "insufficient_balance"]);
const HELD = new Set(["unknown_hold", "hold_mismatch", "hold_ended", "budget_exceeded"]);
const DAY = 86_400_000_000n;

export class Usage {
  constructor(world) {
    Object.assign(this, { world, streams: new Map(), carries: new Map(), paid: new Map(), holds: new Map() });
  }

  // A report's body and signature, and the signer's right to speak for the provider at that time.
  signed(line, what) {
    const { keys } = this.world;
    const body = unbase64(line.body, `${what}_digest`, line.report);
    need(digest(body) === line.digest, `${what}_digest`, line.report, "digest is not that of the body");
    const [head, , signature, more] = line.signature.split(".");
    const signer = detachedSigner(head, signature ?? "", body, (kid) => keys.get(kid)?.key, "usage-report+jws");
    need(signer === line.kid && more === undefined, `${what}_signature`, line.report,
      "not this key's signature of the body");
    const key = keys.get(signer);
    const at = micros(line.received_at);
    need(key.party === line.provider, `${what}_key`, line.report, "the key is not the provider's");
    need(key.from <= at && (key.until === null || at < key.until), `${what}_key`, line.report,
      "the key was not valid then");
    return JSON.parse(body);
  }

  conflict(line) {
    const document = this.signed(line, "conflict");
    const told = [document.provider, document.report, document.seq];
    need(same(told, [line.provider, line.report, line.seq]), "conflict_mismatch", line.report,
      "the line is not the body's");
  }

  report(line, window) {
    const document = this.signed(line, "report");
    const told = [document.v, document.provider, document.report, document.seq];
    need(same(told, [1, line.provider, line.report, line.seq]), "report_mismatch", line.id,
      "the line is not the body's");
    need(line.window === window.no, "report_window", line.id, "it is booked in another window");
    const stream = this.streams.get(line.provider) ?? { seq: 0, last: null, names: new Set() };
    need(line.seq === stream.seq + 1, "report_sequence", line.id, `number ${stream.seq + 1} is next`);
    need(document.prev === stream.last, "report_previous", line.id, "prev is not the digest of the report before");
    need(!stream.names.has(line.report), "report_repeated", line.id, "the provider used this name before");
    this.streams.set(line.provider, { seq: line.seq, last: line.digest, names: stream.names.add(line.report) });
    const sums = this.records(line, document.records, window);
    const postings = this.post(line.provider, sums, window);
    const total = postings.length ? BigInt(postings.at(-1)[2]) : 0n;
    need(String(total) === line.total, "report_total", line.id,
      `${total} microCU is what the carries make of the charges`);
    window.reports += 1;
    window.posted += total;
    const { provider, report, seq, accepted } = line;
    const facts = { provider, report, seq, digest: line.digest, accepted, refused: line.refusals.length };
    return { line, facts, postings };
  }

  // The sum of charges by consumer; adds each charged record's leaf to the tree.
  records(line, records, window) {
    const { tree, tables, parties, offers } = this.world;
    const refused = new Map(line.refusals.map((refusal) => [refusal.line, refusal.code]));
    need(refused.size === line.refusals.length, "report_lines", line.id, "a line is refused twice");
    need(line.accepted === records.length - refused.size, "report_lines", line.id,
      "a line is neither charged nor refused");
    const receivedAt = micros(line.received_at);
    const captures = new Map(line.captures.map((capture) => [capture.line, capture]));
    need(line.captures.every(({ line: at }, n) => n === 0 || at > line.captures[n - 1].line), "capture_order", line.id,
      "captures are not in the order of their lines");
    const [sums, seen] = [new Map(), new Set()];
    records.forEach((record, number) => {
      const subject = `${line.id}/records/${number}`;
      const found = assess(record, receivedAt, tables, offers.get(line.provider) ?? [],
        (consumer, at) => this.world.standing(consumer, at), this.world.busy(line.provider, record));
      const again = seen.has(record.id) || this.wasPaid(line.provider, record.id);
      seen.add(record.id);
      if (refused.has(number)) {
        const code = refused.get(number);
        need(RATED.has(code) || JUDGED.has(code) || HELD.has(code), "refusal_unfounded", subject, `${code} is no reason`);
        need(!HELD.has(code) || record.hold !== undefined, "refusal_unfounded", subject, "it names no hold");
        need(JUDGED.has(code) || HELD.has(code) || code === found.code, "refusal_unfounded", subject, `${code} does not hold`);
        need(code !== "duplicate_record" || again, "refusal_unfounded", subject, "the id is new");
        return;
      }
      need(!found.code, "record_not_chargeable", subject, `it was charged in spite of ${found.code}`);
      need(!again, "record_repeated", subject, "this provider was paid for a record with this id before");
      need(parties.get(record.consumer)?.party_kind === "consumer", "record_consumer", subject, "no such account");
      this.pay(line.provider, record.id, receivedAt);
      found.pico = this.bounded(line.provider, record, captures.get(number), found.pico, subject);
      captures.delete(number);
      this.world.disputes.charged(line.provider, record, found, line, window);
      const sum = sums.get(record.consumer) ?? { records: 0, pico: 0n };
      sums.set(record.consumer, { records: sum.records + 1, pico: sum.pico + found.pico });
      tree.add(this.leaf(line, number, record, found, window));
      window.records += 1;
      window.charged += found.pico;
    });
    need(captures.size === 0, "capture_unfounded", line.id, "a line captures a hold that it does not name");
    return sums;
  }

  // The charge of a record that names a hold is at most what is left of it (holds.md, "What a checker recomputes").
  bounded(provider, record, capture, pico, subject) {
    need((record.hold === undefined) === (capture === undefined), "capture_missing", subject,
      "a record captures the hold that it names");
    if (capture === undefined) return pico;
    const whose = `${provider} ${record.consumer}`;
    const left = BigInt(capture.left);
    const before = this.holds.get(record.hold) ?? { whose, left };
    need(capture.hold === record.hold && before.whose === whose && before.left === left, "capture_hold", subject,
      "it is another hold, or another amount is left of it");
    const charged = pico < left * 1_000_000n ? pico : left * 1_000_000n;
    this.holds.set(record.hold, { whose, left: left - (charged + 999_999n) / 1_000_000n });
    return charged;
  }

  leaf(line, number, record, found, window) {
    const key = window.salts.get(record.consumer);
    if (Array.isArray(key)) {
      need(key.length, "salt_missing", record.consumer, "fewer leaf hashes than records");
      return key.shift();
    }
    if (!key) window.unsalted ??= record.consumer;
    const salt = sha256(key ?? Buffer.alloc(32), Buffer.from(record.id.replaceAll("-", ""), "hex")).toString("hex", 0,
      16);
    return leafHash(canonical({
      charge_pico: String(found.pico), line: number, provider: line.provider, rates: found.version,
      record, report: line.digest, salt, window: window.no,
    }));
  }

  // rounding.md, 1: whole microCU are posted, what is left over is carried.
  post(provider, sums, window) {
    let total = 0n;
    const postings = [];
    for (const consumer of [...sums.keys()].sort()) {
      const { records, pico } = sums.get(consumer);
      const pair = `${provider} ${consumer}`;
      const carried = this.carries.get(pair) ?? 0n;
      const posted = (carried + pico) / 1_000_000n;
      this.carries.set(pair, (carried + pico) % 1_000_000n);
      const owed = window.obligations.get(pair) ?? { provider, consumer, records: 0, carriedIn: carried, pico: 0n,
        posted: 0n };
      owed.records += records;
      owed.pico += pico;
      owed.posted += posted;
      this.world.disputes.posted(provider, consumer, window.no, posted);
      window.obligations.set(pair, owed);
      total += posted;
      if (posted) postings.push([consumer, "CU", String(-posted)]);
    }
    return total ? [...postings, [provider, "CU", String(total)]] : postings;
  }

  // Ids of the last 37 days, by day: a record arrives at most 35 days late, so older ids cannot come again.
  wasPaid(provider, id) {
    return [...this.paid.values()].some((ids) => ids.has(provider + id));
  }

  pay(provider, id, receivedAt) {
    const day = receivedAt / DAY;
    if (!this.paid.has(day)) {
      this.paid.set(day, new Set());
      for (const old of this.paid.keys()) if (old < day - 37n) this.paid.delete(old);
    }
    this.paid.get(day).add(provider + id);
  }

  receipt({ line }, entry) {
    const text = compactPayload(line.receipt, this.world.signsAt(entry.seq), "receipt+jws");
    need(text !== null, "receipt_signature", line.id, "the receipt is not signed by the service");
    const wanted = canonical({
      type: "receipt/1", id: line.id, provider: line.provider, report: line.report, seq: line.seq, digest: line.digest,
      accepted: line.accepted, refused: line.refusals.length, total: line.total, window: line.window,
      received_at: line.received_at, journal: { seq: entry.seq, hash: entry.hash },
    });
    need(text === wanted, "receipt_mismatch", line.id, "the receipt says something else than the books");
  }
}
