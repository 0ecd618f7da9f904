// Money that comes in and goes out: deposits, payouts, chain orders and their attempts (docs/reference/payouts.md).
import { fractionText, micros, need, same } from "./formats.mjs";
import { inForce } from "./rating.mjs";

const STEPS = {
  planned: "signed failed", signed: "submitted unknown settled failed planned contested",
  submitted: "settled failed planned contested", unknown: "submitted settled failed planned contested",
  contested: "settled failed", settled: "", failed: "",
};

export class Money {
  constructor(world) {
    Object.assign(this, { world, intents: new Map(), deposits: new Map(), seen: new Set(), payouts: new Map(),
      orders: new Map(),
      fees: new Map(), slots: new Map(), order: null });
  }

  intent(line) {
    need(!this.intents.has(`${line.chain} ${line.reference}`), "intent_repeated", line.id,
      "two intents with one reference");
    this.intents.set(`${line.chain} ${line.reference}`, line);
  }

  opening({ payload: { subject, facts, postings } }) {
    const chain = this.world.chains.get(subject);
    need(chain && facts.network === chain.network && facts.treasury === chain.treasury, "chain_changed", subject,
      "another network");
    const right = postings.every(([id, asset, amount], at) => (at % 2
      ? id === `equity/${asset}` && BigInt(amount) === -BigInt(postings[at - 1][2])
      : id === `treasury/${asset}` && asset.startsWith(`${subject}/`)));
    need(right && postings.length % 2 === 0, "opening_postings", subject, "not from treasury to equity");
  }

  operation({ payload: { subject, facts, postings } }) {
    const sums = new Map();
    let right = postings.length > 0;
    for (const [id, asset, amount] of postings) {
      right &&= [`treasury/${asset}`, `fees/${asset}`, `equity/${asset}`].includes(id);
      right &&= asset.startsWith(`${facts.chain}/`) && (BigInt(amount) > 0n) === id.startsWith("treasury/");
      sums.set(asset, (sums.get(asset) ?? 0n) + BigInt(amount));
    }
    need(right && [...sums.values()].every((sum) => sum === 0n), "operation_postings", subject,
      "not from the treasury to fees or equity");
  }

  deposit(line) {
    const place = `${line.chain} ${line.tx} ${line.tx_index}`;
    need(!this.seen.has(place), "deposit_repeated", line.id, "this payment was booked before");
    this.seen.add(place);
    this.deposits.set(line.id, line);
  }

  // What an amount is worth by the policy in force when the ledger closed; null when it has no worth.
  credit(line) {
    const value = this.world.value(inForce(this.world.policies, micros(line.closed_at)), line.chain, line.asset);
    return value && { micro: (BigInt(line.amount) * value[0]) / value[1], text: fractionText(value) };
  }

  credited(entry) {
    const [id, suffix] = entry.payload.subject.split("/");
    const line = this.deposits.get(id);
    need(line && (suffix ? suffix === "assigned" && line.suspense && !line.assigned : line.entry_seq === entry.seq),
      "deposit_entry", entry.payload.subject, "no such deposit");
    const credit = this.credit(line);
    need(credit && line.micro_per_unit === credit.text, "deposit_rate", id, "not the policy's value");
    need(line.credited === String(credit.micro) && credit.micro > 0n, "deposit_credit", id,
      `worth ${credit.micro} microCU`);
    const { tx, tx_index: index } = line;
    const facts = suffix ? { tx, index, micro_per_unit: credit.text }
      : { ...this.facts(line), micro_per_unit: credit.text };
    need(same(entry.payload.facts, facts), "deposit_facts", id, "the entry's facts are not the deposit's");
    const intent = this.intents.get(`${line.chain} ${line.reference}`);
    need(suffix || intent?.party === line.party, "deposit_party", id, "its reference names somebody else");
    const asset = `${line.chain}/${line.asset}`;
    const wanted = [
      [`${suffix ? "suspense" : "treasury"}/${asset}`, asset, `-${line.amount}`],
        [`conversion/${asset}`, asset, line.amount],
      ["conversion/CU", "CU", `-${line.credited}`], [line.party, "CU", line.credited],
    ];
    need(same(entry.payload.postings, wanted), "deposit_postings", id, "the postings are not the deposit's");
    line.assigned = Boolean(suffix);
  }

  facts({ chain, tx, tx_index: index, sender, reference }) {
    const facts = { network: this.world.chains.get(chain)?.network, tx, index, sender };
    return reference === null ? facts : { ...facts, reference };
  }

  suspended(entry) {
    const line = this.deposits.get(entry.payload.subject);
    need(line?.entry_seq === entry.seq, "deposit_entry", entry.payload.subject, "no such deposit");
    need(same(entry.payload.facts, this.facts(line)), "deposit_facts", line.id,
      "the entry's facts are not the deposit's");
    const asset = `${line.chain}/${line.asset}`;
    const wanted = [[`treasury/${asset}`, asset, `-${line.amount}`], [`suspense/${asset}`, asset, line.amount]];
    need(same(entry.payload.postings, wanted), "deposit_postings", line.id, "the postings are not the deposit's");
    const intent = this.intents.get(`${line.chain} ${line.reference}`);
    const known = intent && micros(intent.created_at) < micros(line.closed_at);
    need(!known || !(this.credit(line)?.micro > 0n), "deposit_party", line.id, "its reference names a participant");
    line.suspense = true;
  }

  payout(line) {
    const position = this.world.windows.all.get(line.window)?.positions.find((found) => found.party === line.party);
    need(position && !this.payouts.has(line.id), "payout_unfounded", line.id, "no position promises it");
    const told = [line.chain, line.asset, line.amount, line.micro];
    need(same(told, [position.chain, position.asset, position.amount, position.payout]), "payout_mismatch", line.id,
      "not the position's");
    need(position.plannedAt === undefined, "payout_unfounded", line.id, "it was paid before");
    this.payouts.set(line.id, { ...line, position });
  }

  planned(entry) {
    const { subject, postings, facts } = entry.payload;
    const line = this.payouts.get(subject);
    need(line && !line.planned, "payout_entry", subject, "no such payout");
    const { chain, asset, amount, address, reference, window } = line;
    const wanted = { window: `win_${window}`, chain, asset, amount, address,
      ...(reference === null ? {} : { reference }) };
    need(same(facts, wanted), "payout_facts", subject, "the entry's facts are not the payout's");
    const moves = [[line.party, "CU", `-${line.micro}`], ["transit/CU", "CU", line.micro]];
    need(same(postings, moves), "payout_postings", subject, "the postings are not the payout's");
    Object.assign(line, { planned: true });
    line.position.plannedAt = entry.seq;
  }

  ended(entry) {
    const { kind, subject, postings, facts } = entry.payload;
    const line = this.payouts.get(subject);
    need(line?.planned && !line.ended, "payout_entry", subject, "it is not on its way");
    const asset = `${line.chain}/${line.asset}`;
    const back = [["transit/CU", "CU", `-${line.micro}`], [line.party, "CU", line.micro]];
    const sent = [back[0], ["conversion/CU", "CU", line.micro], [`conversion/${asset}`, asset, `-${line.amount}`],
      [`treasury/${asset}`, asset, line.amount]];
    const settled = kind === "payout_settled";
    need(same(postings, settled ? sent : back), "payout_postings", subject, "the postings are not the payout's");
    need(facts.order === line.order && (!settled || facts.transfer === line.transfer), "payout_facts", subject,
      "another order");
    if (!settled) this.world.failures.push({ seq: entry.seq, party: line.party, micro: BigInt(line.micro) });
    line.ended = { state: kind.slice(7), facts };
  }

  fee(entry) {
    const { subject, postings, facts } = entry.payload;
    this.fees.set(subject, { postings, facts });
  }

  chainOrder(line) {
    this.close();
    need(!this.orders.has(line.id), "order_repeated", line.id, "twice");
    this.order = { ...line, tries: [], at: "planned" };
    this.orders.set(line.id, this.order);
  }

  attempt(line) {
    const { order } = this;
    need(order?.id === line.order && line.n === order.tries.length + 1, "attempt_number", line.order,
      `attempt ${line.n}`);
    const slot = ({ slot_account, slot_kind, slot_number }) => `${slot_account} ${slot_kind} ${slot_number}`;
    need(slot(line) === slot(order.slot_account === null ? order.tries[0] ?? line : order), "attempt_slot", line.order,
      `attempt ${line.n} is on another slot than its order`);
    order.tries.push(line);
    order.slot = slot(line);
  }

  event(line) {
    const { order } = this;
    need(order?.id === line.order && line.n <= order.tries.length, "attempt_event", line.order, `no attempt ${line.n}`);
    const next = line.state === "expired" ? "planned" : line.state;
    need(STEPS[order.at].split(" ").includes(next), "attempt_event", line.order, `${order.at} to ${next} is no step`);
    order.at = next;
  }

  close() {
    const { order } = this;
    if (!order) return;
    need(order.at === order.state, "order_state", order.id, `its events end at ${order.at}`);
    need(order.attempts === order.tries.length, "order_attempts", order.id,
      `${order.tries.length} attempts are on record`);
    const used = order.slot && (order.state !== "failed" || order.tx !== null);
    need(!used || !this.slots.has(order.slot), "slot_reused", order.id, `${this.slots.get(order.slot)} has its slot`);
    if (used) this.slots.set(order.slot, order.id);
    const known = order.tries.flatMap((attempt) => [attempt.tx, ...attempt.aliases]);
    need(order.tx === null ? order.state !== "settled" : known.includes(order.tx), "order_transaction", order.id,
      "not an attempt's");
    this.feeOf(order);
    const mine = [...this.payouts.values()].filter((payout) => payout.order === order.id);
    if (order.order_kind === "payout") this.transfers(order, mine);
    else this.anchor(order, mine);
    delete order.tries;
  }

  feeOf(order) {
    const fee = this.fees.get(order.id);
    this.fees.delete(order.id);
    const asset = `${order.chain}/${this.world.chains.get(order.chain)?.fee_asset}`;
    const due = order.fee !== null && order.fee !== "0";
    need(due === Boolean(fee), "order_fee", order.id, "an order with a fee has one entry for it");
    if (!due) return;
    const wanted = [[`treasury/${asset}`, asset, order.fee], [`fees/${asset}`, asset, `-${order.fee}`]];
    need(same(fee.postings, wanted) && same(fee.facts, { tx: order.tx }), "order_fee", order.id,
      "the entry is not this fee");
  }

  transfers(order, mine) {
    need(order.digest === null, "order_kind", order.id, "payouts carry no digest");
    const places = mine.map((payout) => payout.transfer).sort((a, b) => a - b);
    const settled = order.state === "settled";
    need(order.state === "failed" || places.length > 0, "order_empty", order.id, "it pays nobody");
    need(!settled || places.every((place, at) => place === at), "order_transfers", order.id,
      `places ${places.join(" ")}`);
    for (const payout of mine) {
      const wanted = settled ? "settled" : order.state === "failed" ? "failed" : "ordered";
      need(payout.state === wanted && payout.window === order.window && payout.chain === order.chain, "payout_order",
        payout.id, `${wanted}`);
      const facts = payout.ended?.facts;
      need(!settled || (facts?.tx === order.tx && facts.ledger === order.ledger), "payout_facts", payout.id,
        "another transaction");
    }
  }

  anchor(order, mine) {
    const window = this.world.windows.all.get(order.window);
    need(order.order_kind === "anchor" && mine.length === 0, "order_kind", order.id, "an anchor pays nobody");
    need(window?.digest !== undefined && order.digest === window.digest, "anchor_digest", order.id,
      "not the checkpoint's digest");
    if (order.state === "settled") (window.anchors ??= []).push(order.ended_at);
  }

  finish() {
    this.close();
    need(this.fees.size === 0, "order_fee", [...this.fees.keys()][0], "a fee of no order");
    for (const line of this.deposits.values()) {
      need(!line.suspense || (line.party !== null) === Boolean(line.assigned), "deposit_party", line.id,
        "assigned or not");
      need(!line.suspense || line.assigned || line.credited === "0", "deposit_credit", line.id, "it is in suspense");
    }
    let transit = 0n;
    for (const payout of this.payouts.values()) {
      const wanted = payout.ended?.state ?? (payout.order === null ? "planned" : "ordered");
      need(payout.planned && payout.state === wanted, "payout_state", payout.id, `it is ${wanted}`);
      need(payout.order === null || this.orders.has(payout.order), "payout_order", payout.id, "no such order");
      if (!payout.ended) transit += BigInt(payout.micro);
    }
    need((this.world.balances.get("transit/CU") ?? 0n) === transit, "transit_mismatch", "transit/CU",
      `${transit} is on its way`);
    for (const window of this.world.windows.all.values()) {
      const right = window.anchored_at === null ? !window.anchors : window.anchors?.includes(window.anchored_at);
      need(right, "window_anchored", window.no, "anchored_at is not when an anchor became final");
    }
  }
}
