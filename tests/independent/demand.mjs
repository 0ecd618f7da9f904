// Demand (docs/reference/demand.md): every step made again, and the multiplier that a hold was quoted.
import { canonical, digest, documentSigned, micros, need, parseCanonical, parseFraction, same } from "./formats.mjs";
import { inForce, madeAt, multiplier } from "./rating.mjs";

const ONE = 10_000n;
const MINUTES = 300n * 1_000_000n;
const parts = (text) => {
  const [n, d] = parseFraction(text);
  return (n * ONE) / d;
};
const decimal = (value) => {
  const places = String(value % ONE).padStart(4, "0").replace(/0+$/, "");
  return `${value / ONE}${places && "."}${places}`;
};
const text = (at) => new Date(Number(at / 1000n)).toISOString().replace(".000Z", "Z");

function wanted(points, utilisation) {
  if (utilisation <= points[0][0]) return points[0][1];
  for (let at = 1; at < points.length; at += 1) {
    const [[low, least], [high, most]] = [points[at - 1], points[at]];
    if (utilisation <= high) return least + ((most - least) * (utilisation - low)) / (high - low);
  }
  return points.at(-1)[1];
}

const within = (value, low, high) => (value < low ? low : value > high ? high : value);

// A provider's multiplier by the step that was in force at a time; `steps` in order.
export function busy(steps, provider, hold) {
  const at = hold === undefined ? null : madeAt(hold);
  const step = at === null ? null : inForce(steps, at);
  if (step === null || at >= step.until) return ONE;
  return multiplier(step.document.providers[provider]?.multiplier ?? "1");
}

// The signed step of a line, checked as a document.
export function readStep(line, keyOf) {
  const document = parseCanonical(line.document, "demand_malformed", line.number);
  need(digest(line.document) === line.digest, "demand_digest", line.number, "digest is not that of the document");
  documentSigned(line.document, line.signatures, keyOf, "demand_signature", line.number);
  need(document.type === "demand/1" && document.number === line.number, "demand_malformed", line.number, "another one");
  return { from: micros(document.effective_from), until: micros(document.until), document };
}

export class Demand {
  constructor(world) {
    Object.assign(this, { world, steps: [], charged: new Map(), last: null, digest: null });
  }

  add(provider, total) {
    this.charged.set(provider, (this.charged.get(provider) ?? 0n) + total);
  }

  line(line) {
    const { world, last, charged } = this;
    const step = readStep(line, world.signsAt(world.head.seq));
    const at = micros(step.document.at);
    const rules = inForce(world.policies, at)?.document.demand;
    need(rules?.curve.length, "demand_off", line.number, "the policy of its time has no curve");
    const span = BigInt(rules.step_seconds) * 1_000_000n;
    need(!last || at >= micros(last.document.at) + span, "demand_too_soon", line.number, "less than a step later");
    const providers = {};
    for (const [name, versions] of last ? world.offers : []) {
      const capacity = inForce(versions, at)?.document.capacity;
      if (capacity === undefined) continue;
      const before = multiplier(last.document.providers[name]?.multiplier ?? "1");
      const seconds = (at - micros(last.document.at)) / 1_000_000n;
      const effort = ((charged.get(name) ?? 0n) * ONE) / before;
      const utilisation = within((effort * 1_000_000n * 3600n) / (BigInt(capacity) * seconds), 0n, 10_000_000n);
      const points = rules.curve.map((each) => [BigInt(each.utilisation), parts(each.multiplier)]);
      const slew = parts(rules.slew);
      const near = within(wanted(points, utilisation), before - slew, before + slew);
      providers[name] = { charged: String(charged.get(name) ?? 0n), capacity, utilisation: Number(utilisation),
        multiplier: decimal(within(near, parts(rules.floor), parts(rules.cap))) };
    }
    const made = { type: "demand/1", number: (last?.document.number ?? 0) + 1, parent: this.digest, at: text(at),
      effective_from: text(at + MINUTES), until: text(at + MINUTES + 2n * span), providers };
    need(line.document === canonical(made), "demand_document", line.number, "not what books, offers and policy make");
    Object.assign(this, { last: step, digest: line.digest, charged: new Map(), seq: line.journal_seq });
    return step;
  }

  book({ seq, payload: { at, facts, postings } }, about) {
    need(about?.kinds === "demand" && seq === this.seq && same(postings, []), "demand_entry", seq, "no step comes before it");
    const { number } = this.last.document;
    const right = same(facts, { number, digest: this.digest }) && micros(at) === micros(this.last.document.at);
    need(right, "demand_entry", number, "its facts or its time are others");
    this.steps.push(this.last);
  }
}
