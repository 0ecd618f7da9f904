// What a usage record costs (docs/reference/rates.md) and why one is refused (docs/reference/usage.md).
import { micros } from "./formats.mjs";

const MINUTE = 60_000_000n;
const DAY = 1440n * MINUTE;
const LIMIT = 2n ** 63n - 1n;
const ONE = 10000n;
const has = (object, name) => Object.hasOwn(object, name);
const refuse = (code) => ({ code });

// The ten-thousandths of decimal text with at most four places.
export function multiplier(text) {
  const [whole, part = ""] = text.split(".");
  return BigInt(whole + part.padEnd(4, "0"));
}

// The multiplier of the tier at the time of day of RFC 3339 text, in ten-thousandths.
function hourly(tier, at) {
  const minute = at.slice(11, 16);
  const part = (tier.hours ?? []).find(({ from, until }) => (from < until ? from <= minute && minute < until
    : from <= minute || minute < until));
  return part ? multiplier(part.multiplier) : ONE;
}

// {pico} or {code}: the charge of a record by one rate table; `further` are multipliers in ten-thousandths, in order.
export function charge(table, record, further = []) {
  const name = has(table.models, record.model) ? record.model : has(table.aliases, record.model)
    ? table.aliases[record.model] : null;
  if (name === null) return refuse("unknown_model");
  const tiers = table.models[name].tiers;
  if (!has(tiers, record.tier)) return refuse("unknown_tier");
  const units = (meter) => BigInt(has(record.meters, meter) ? record.meters[meter] : 0);
  for (const meter of Object.keys(record.meters)) {
    if (!has(table.meters, meter) || meter === "requests") return refuse("unknown_meter");
  }
  const total = units("input_tokens");
  const tier = tiers[record.tier];
  const reached = tier.bands.filter((band, at) => at === 0 || BigInt(band.above_input_tokens) < total);
  const { rates } = tier.context === "excess" ? tier.bands[0] : reached.at(-1);
  const rateOf = (meter) => (meter === null || has(rates, meter) ? rates[meter] : rateOf(table.meters[meter].parent));
  for (const meter of Object.keys(record.meters)) {
    if (units(meter) > 0n && rateOf(meter) === undefined) return refuse("unpriced_meter");
  }
  const own = new Map();
  for (const meter of Object.keys(table.meters)) {
    const { parent } = table.meters[meter];
    own.set(meter, (own.get(meter) ?? 0n) + units(meter));
    if (parent !== null) own.set(parent, (own.get(parent) ?? 0n) - units(meter));
  }
  if ([...own.values()].some((count) => count < 0n)) return refuse("subset_above_whole");
  if (record.outcome === "errored") return { pico: 0n };
  let pico = BigInt(rates.requests ?? 0);
  for (const [meter, count] of own) if (count > 0n) pico += count * BigInt(rateOf(meter));
  if (tier.context === "excess") {
    for (let at = 1; at < reached.length; at += 1) {
      const more = BigInt(reached[at].rates.input_tokens) - BigInt(reached[at - 1].rates.input_tokens);
      pico += (total - BigInt(reached[at].above_input_tokens)) * more;
    }
  }
  if (pico < BigInt(tier.minimum ?? 0)) pico = BigInt(tier.minimum);
  let most = pico;
  for (const value of [hourly(tier, record.at), ...further]) {
    pico = (pico * value) / ONE;
    if (pico > most) most = pico;
  }
  return most > LIMIT ? refuse("charge_too_large") : { pico };
}

// The newest version whose effective_from has come.
export function inForce(versions, at) {
  return versions.filter((version) => version.from <= at).at(-1) ?? null;
}

// What an offer (offers.md) asks for a record, in ten-thousandths: by model and tier, by model, or as usual.
export function ask(offer, table, record) {
  const model = has(table.models, record.model) ? record.model : table.aliases[record.model];
  const asks = offer.asks.filter((each) => each.model === model && (each.tier ?? record.tier) === record.tier);
  return multiplier((asks.find((each) => each.tier !== undefined) ?? asks[0])?.multiplier ?? offer.usual);
}

// The microseconds in which a hold was made, from the UUIDv7 in its id; null for text that is no hold's id, or of no time.
export function madeAt(hold) {
  if (!/^hld_[0-7][0-9a-hjkmnp-tv-z]{25}$/.test(hold)) return null;
  const digits = [...hold.slice(4)].map((digit) => "0123456789abcdefghjkmnpqrstvwxyz".indexOf(digit));
  const milliseconds = digits.reduce((number, digit) => number << 5n | BigInt(digit), 0n) >> 80n;
  return milliseconds <= 253402300799999n ? milliseconds * 1000n : null;
}

// Steps 1 to 12 of "Checks on each record", without step 4: {code} or {pico, version}. `offers` are its provider's.
export function assess(record, receivedAt, tables, offers, standing = () => ONE, busy = ONE) {
  const at = micros(record.at);
  if (at > receivedAt + 5n * MINUTE) return refuse("time_in_future");
  if (at < receivedAt - 35n * DAY) return refuse("time_too_old");
  const made = BigInt("0x" + record.id.replaceAll("-", "").slice(0, 12)) * 1000n;
  const apart = made > at ? made - at : at - made;
  if (apart > MINUTE) return refuse("id_time_mismatch");
  const table = inForce(tables, has(record, "hold") ? madeAt(record.hold) ?? at : at);
  if (table === null) return refuse("rates_not_in_force");
  if (has(record, "rates") && record.rates !== String(table.version)) return refuse("rates_mismatch");
  const offer = inForce(offers, at);
  const further = [...(offer === null ? [] : [ask(offer.document, table.document, record)]), busy,
    standing(record.consumer, at)];
  return { ...charge(table.document, record, further), version: table.version };
}
