// The index of docs/reference/value.md: observations, fixings made again, and what they convert.
import { canonical, detachedSigner, digest, documentSigned, fraction, fractionText, micros, need, parseCanonical,
  parseFraction, publicKey, same, unbase64 } from "./formats.mjs";
import { inForce } from "./rating.mjs";

const UNIT = 10n ** 15n;
const SECOND = 1_000_000n;
const RULES = { // policy.md: what a policy without the section has
  components: [["TOK", "3/5"], ["GPU", "1/4"], ["XRP", "3/40"], ["XLM", "3/40"]].map(([series, weight], at) => (
    { series, weight, volatile: at > 1 })),
  smoothing: 3, band: "3/200", review_seconds: 7862400, drift: "1/2", gap: "1/20", stale_seconds: 86400,
  contradiction: "3/100", sources: 3, spread: "1/400", own_rate_for_seconds: 86400,
};

const abs = (value) => (value < 0n ? -value : value);
const floor = (n, d) => (n < 0n ? -((-n + d - 1n) / d) : n / d);
const times = ([a, b], [c, d]) => fraction(a * c, b * d);
const over = ([a, b], [c, d]) => fraction(a * d, b * c);
const plus = ([a, b], [c, d]) => fraction(a * d + c * b, b * d);
const below = ([a, b], [c, d]) => a * d < c * b;
const least = (one, other) => (other < one ? other : one);
const most = (one, other) => (other > one ? other : one);

// Half to even.
function round([n, d]) {
  const whole = floor(n, d);
  const twice = 2n * (n - whole * d);
  return whole + (twice > d || (twice === d && whole % 2n) ? 1n : 0n);
}

export class Index {
  constructor(world) {
    Object.assign(this, { world, seen: [], no: 0, last: null, moved: null, pending: null, current: null,
      holders: new Map() });
  }

  section(policy) {
    return policy?.document.index ?? { begins_at: "9/2000", oracles: [], rules: RULES };
  }

  observation(line) {
    const body = unbase64(line.body, "observation_digest", line.no);
    need(line.no > this.no, "observation_order", line.no, "out of order");
    need(digest(body) === line.digest, "observation_digest", line.no, "digest is not that of the body");
    const [document, received] = [JSON.parse(body), micros(line.received_at)];
    const { oracles, rules } = this.section(inForce(this.world.policies, received));
    const oracle = oracles.find((each) => each.source === document.source);
    need(oracle, "observation_source", line.no, "no source of the policy");
    const { kid, key } = publicKey({ crv: "Ed25519", kty: "OKP", x: oracle.x });
    const [head, , signature] = line.signature.split(".");
    const keyOf = (found) => (found === kid ? key : null);
    need(detachedSigner(head, signature ?? "", body, keyOf, "observation+jws") === kid, "observation_signature", line.no,
      "not the source's signature");
    const at = micros(document.at);
    const told = [document.type, document.source, document.at];
    need(same(told, ["observation/1", line.source, line.at]), "observation_malformed", line.no, "not the body's");
    need(received - BigInt(rules.stale_seconds) * SECOND <= at && at <= received + 300n * SECOND, "observation_time",
      line.no, "stale or ahead");
    need(!this.seen.some((each) => each.source === document.source && each.at === at), "observation_repeated", line.no,
      "its source spoke of that time before");
    const usd = Object.entries(document.usd).map(([series, text]) => {
      const [whole, more = ""] = text.split(".");
      return [series, fraction(BigInt(whole + more), 10n ** BigInt(more.length))];
    });
    this.no = line.no;
    this.seen.push({ source: document.source, at, digest: line.digest, usd: new Map(usd) });
  }

  median(at, rules) {
    const [prices, reasons] = [{}, []];
    for (const { series } of rules.components) {
      const newest = new Map();
      for (const each of this.seen) {
        const known = newest.get(each.source);
        if (each.at <= at && each.usd.has(series) && !(known?.at >= each.at)) newest.set(each.source, each);
      }
      const found = [...newest.values()];
      const posted = found.map((each) => each.usd.get(series)).sort((a, b) => (below(a, b) ? -1 : below(b, a) ? 1 : 0));
      const [low, high] = [posted[0], posted.at(-1)];
      if (posted.length < rules.sources) reasons.push([0, `sources_missing ${series}`]);
      else if (found.some((each) => each.at < at - BigInt(rules.stale_seconds) * SECOND)) {
        reasons.push([1, `source_stale ${series}`]);
      } else if (below(plus(low, times(low, parseFraction(rules.contradiction))), high)) {
        reasons.push([2, `sources_differ ${series}`]);
      }
      const middle = posted.length >> 1;
      if (posted.length) {
        prices[series] = times(plus(posted[middle], posted[posted.length % 2 ? middle : middle - 1]), [1n, 2n]);
      }
    }
    reasons.sort(([a, x], [b, y]) => a - b || (x < y ? -1 : 1));
    return [prices, reasons[0]?.[1] ?? null];
  }

  made(at, stated, section) {
    const { rules } = section;
    const [prices, distrust] = this.median(at, rules);
    const buy = (worth) => Object.fromEntries(rules.components.map(({ series, weight }) => [series,
      over(times(parseFraction(weight), fraction(worth, UNIT)), prices[series])]));
    const { last } = this;
    if (!last) {
      need(distrust === null, "fixing_document", stated.number, "it can't begin");
      const worth = round(times(parseFraction(section.begins_at), [UNIT, 1n]));
      return { number: 1, prices, quantities: buy(worth), reviewed: at, basket: worth, smoothed: worth, value: worth,
        gaps: 0, frozen: null };
    }
    const number = last.number + 1;
    if (distrust !== null) return { ...last, number, prices, frozen: distrust };
    const basket = round(times(Object.entries(last.quantities).reduce((sum, [series, quantity]) => (
      plus(sum, times(quantity, prices[series]))), [0n, 1n]), [UNIT, 1n]));
    const days = BigInt(rules.smoothing);
    const smoothed = round([2n * basket + (days - 1n) * last.smoothed, days + 1n]);
    if (stated.reset) {
      return { number, prices, quantities: buy(last.value), reviewed: at, basket: last.value, smoothed: last.value,
        value: last.value, gaps: 0, frozen: null };
    }
    const [[gn, gd], [bn, bd]] = [parseFraction(rules.gap), parseFraction(rules.band)];
    const gaps = abs(basket - last.value) * gd > last.value * gn ? last.gaps + 1 : 0;
    const frozen = gaps >= 2 || last.frozen?.startsWith("gap") ? "gap between basket and value" : null;
    const [low, high] = [-floor(-last.value * (bd - bn), bd), floor(last.value * (bd + bn), bd)];
    const value = frozen ? last.value : least(most(smoothed, low), high);
    const due = at - last.reviewed >= BigInt(rules.review_seconds) * SECOND;
    const [again, reviewed] = due || this.drifted(last.quantities, prices, basket, rules) ? [buy(basket), at]
      : [last.quantities, last.reviewed];
    return { number, prices, quantities: again, reviewed, basket, smoothed, value, gaps, frozen };
  }

  drifted(quantities, prices, basket, rules) {
    return rules.components.some(({ series, weight, volatile }) => {
      const wanted = times(parseFraction(weight), [basket, 1n]);
      const [n, d] = plus(times(times(quantities[series], prices[series]), [UNIT, 1n]), times(wanted, [-1n, 1n]));
      return volatile && below(times(wanted, parseFraction(rules.drift)), [abs(n), abs(d)]);
    });
  }

  fixing(line) {
    const name = line.number;
    need(!this.pending, "fixing_entry", name, "the one before has no entry");
    const stated = parseCanonical(line.document, "fixing_document", name);
    need(digest(line.document) === line.digest, "fixing_digest", name, "digest is not that of the document");
    documentSigned(line.document, line.signatures, this.world.signsAt(this.world.head.seq), "fixing_signature", name);
    const at = micros(stated.at);
    need(line.number === (this.last?.number ?? 0) + 1 && line.at === stated.at && !(this.last?.at >= at), "fixing_number",
      name, "out of order");
    need(!this.moved || at - this.moved >= 82800n * SECOND, "fixing_too_soon", name, "less than 23 hours later");
    need(!stated.reset || this.last?.frozen?.startsWith("gap"), "fixing_reset", name, "no gap");
    this.seen = this.seen.filter((each) => each.at >= at - 7n * 86400n * SECOND);
    need(line.observed === this.no, "fixing_observations", name, "another last observation");
    const section = this.section(inForce(this.world.policies, at));
    const found = { ...this.made(at, stated, section), at };
    const texts = (values) => Object.fromEntries(Object.entries(values).map(([key, each]) => [key, fractionText(each)]));
    const wanted = {
      ...(stated.reset ? { reset: true } : {}), type: "fixing/1", number: found.number, parent: this.last?.digest ?? null,
      at: stated.at, observations: this.seen.filter((each) => each.at <= at).map((each) => each.digest).sort(),
      prices: texts(found.prices), quantities: texts(found.quantities),
      reviewed_at: found.reviewed === at ? stated.at : this.last.reviewed_at, basket: String(found.basket),
      smoothed: String(found.smoothed), value: String(found.value), gaps: found.gaps, frozen: found.frozen,
    };
    need(same(stated, wanted), "fixing_document", name, canonical(wanted));
    this.last = { ...found, digest: line.digest, reviewed_at: wanted.reviewed_at };
    this.pending = line.journal_seq === null ? null : line;
    if (found.frozen === null || found.frozen.startsWith("gap")) this.moved = at;
  }

  book(entry) {
    const { subject, facts, postings, at } = entry.payload;
    const line = this.pending;
    this.pending = null;
    const told = line && { number: line.number, digest: line.digest };
    need(line && subject === `fix_${line.number}` && line.journal_seq === entry.seq && same(facts, told)
      && at === line.at, "fixing_entry", subject, "no such fixing");
    this.current = this.last;
    const policy = inForce(this.world.policies, micros(at));
    let [n, d] = [0n, 1n];
    const { balances } = this.world;
    for (const [chain, { assets }] of this.world.chains) {
      for (const asset of Object.keys(assets)) {
        const held = balances.get(`conversion/${chain}/${asset}`) ?? 0n;
        const value = this.measured(policy, chain, asset);
        if (value) [n, d] = plus([n, d], times([held, 1n], value));
      }
    }
    const change = this.follows(policy) ? -floor(n * (d < 0n ? -1n : 1n), abs(d)) - (balances.get("conversion/CU") ?? 0n)
      : 0n;
    const wanted = change ? [["conversion/CU", "CU", String(change)], ["fx/CU", "CU", String(-change)]] : [];
    need(same(postings, wanted), "fixing_postings", subject, canonical(wanted));
  }

  follows = (policy) => policy?.document.value.mode === "index";

  // Whether nothing is converted at a time.
  paused(policy, at) {
    const { current } = this;
    return !current || current.frozen !== null
      || at - current.at > BigInt(policy.document.value.fixing_seconds) * SECOND;
  }

  price(policy, use) {
    const { value, basket } = this.current;
    if (use === "deposit") return fraction(most(value, basket), UNIT);
    if (use === "payout") return fraction(value, UNIT);
    const [n, d] = parseFraction(this.section(policy).rules.spread);
    return fraction(least(value, basket) * (d - n), UNIT * d);
  }

  // microCU for an asset's smallest unit; null when it has no worth, or nothing is converted.
  worth(policy, use, chain, asset, at) {
    if (!this.follows(policy)) return this.world.value(policy, chain, asset);
    return this.paused(policy, at) ? null : this.world.value(policy, chain, asset, this.price(policy, use));
  }

  // The number of the fixing that converts, if one does.
  number(policy, at) {
    return this.follows(policy) && !this.paused(policy, at) ? this.current.number : null;
  }

  measured(policy, chain, asset) {
    if (!this.follows(policy)) return this.world.value(policy, chain, asset);
    return this.current && this.world.value(policy, chain, asset, fraction(this.current.value, UNIT));
  }

  holder(party) {
    return this.holders.get(party) ?? this.holders.set(party, { lots: [], back: [] }).get(party);
  }

  deposited(party, at, micro) {
    this.holder(party).lots.push({ at, micro, price: this.price(null, "deposit") });
  }

  // What fresh money cost on average, and how much of it is there.
  fresh(party, policy, at) {
    const since = at - BigInt(this.section(policy).rules.own_rate_for_seconds) * SECOND;
    const { lots, back } = this.holder(party);
    const recent = lots.filter((each) => each.at >= since);
    const brought = recent.reduce((sum, each) => sum + each.micro, 0n);
    const returned = back.filter((each) => each.at >= since && !each.failed).reduce((sum, each) => sum + each.micro, 0n);
    const left = least(this.world.balances.get(party) ?? 0n, brought - returned);
    const paid = recent.reduce((sum, each) => plus(sum, times([each.micro, 1n], each.price)), [0n, 1n]);
    return left > 0n ? { left, price: over(paid, [brought, 1n]) } : null;
  }
}
