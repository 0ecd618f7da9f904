// Surcharges (docs/reference/surcharges.md): above what is free, noticed in time, once, and no more than is due.
import { micros, need, same } from "./formats.mjs";
import { inForce } from "./rating.mjs";

const SECOND = 1_000_000n;
const DAY = 86_400n * SECOND;
const max = (one, other) => (one > other ? one : other);

// What a day costs by the policy that was in force when it began; also used for statements.
export function due(policies, { day, holds, unused }) {
  const rules = inForce(policies, micros(day))?.document.surcharge;
  if (!rules) return 0n;
  const free = max(BigInt(rules.free), (BigInt(holds) * BigInt(rules.free_share)) / 1_000_000n);
  const owed = max(BigInt(unused) - free, 0n) * BigInt(rules.fee);
  return owed < BigInt(rules.most) ? owed : BigInt(rules.most);
}

export class Surcharges {
  constructor(world) {
    Object.assign(this, { world, notices: new Map() });
  }

  day({ payload: { at, facts, subject } }, names) {
    need(same(Object.keys(facts).sort(), names), "surcharge_facts", subject, "its facts");
    const begins = micros(facts.day);
    const over = begins % DAY === 0n && facts.unused <= facts.holds && micros(at) >= begins + DAY + 7200n * SECOND;
    const consumer = subject.split("/")[0];
    need(over && subject === `${consumer}/${facts.day.slice(0, 10)}`, "surcharge_facts", subject, "not a day that was over");
    const owed = due(this.world.policies, facts);
    need(owed > 0n && String(owed) === facts.due, "surcharge_due", subject, `${owed} is due`);
    return { begins, consumer, owed };
  }

  noticed(entry) {
    const { at, facts, postings, subject } = entry.payload;
    const { begins, consumer } = this.day(entry, ["day", "due", "holds", "since", "until", "unused"]);
    need(same(postings, []), "surcharge_postings", subject, "a notice moves nothing");
    const rules = inForce(this.world.policies, begins).document.surcharge;
    const over = micros(at) + BigInt(rules.notice_seconds) * SECOND;
    const since = over % DAY === 0n ? over : over - (over % DAY) + DAY;
    const until = since + BigInt(rules.lapses_seconds) * SECOND;
    need(micros(facts.since) === since && micros(facts.until) === until, "surcharge_notice", subject, "other days");
    const last = this.notices.get(consumer);
    need(!last || last.until <= begins, "surcharge_notice", subject, "a notice before it holds still");
    this.notices.set(consumer, { since, until });
  }

  book(entry) {
    const { postings, subject } = entry.payload;
    const { begins, consumer, owed } = this.day(entry, ["day", "due", "holds", "unused"]);
    const notice = this.notices.get(consumer);
    need(notice && notice.since <= begins && begins < notice.until, "surcharge_notice", subject, "no notice covers it");
    const amount = BigInt(postings[1]?.[2] ?? 0);
    need(amount > 0n && amount <= owed, "surcharge_due", subject, `${owed} is due`);
    const wanted = [[consumer, "CU", String(-amount)], ["fees/CU", "CU", String(amount)]];
    need(same(postings, wanted), "surcharge_postings", subject, "not from the consumer to the fees");
  }
}
