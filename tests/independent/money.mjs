// Money that comes in and goes out: deposits, payouts, chain orders and their attempts (docs/reference/payouts.md).
import { fractionText, micros, need, same } from "./formats.mjs";
import { inForce } from "./rating.mjs";

const STEPS = {
  planned: "signed failed", signed: "submitted unknown settled failed planned contested",
  submitted: "settled failed planned contested", unknown: "submitted settled failed planned contested",
  contested: "settled failed", settled: "", failed: "",
};

// journal.md: how the journal calls each kind of payout.
const NAMES = { earnings: "payout", withdrawal: "withdrawal", refund: "refund" };

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

  // What an amount is worth at a time by the policy in force when the ledger closed; null when it has no worth.
  credit(line, at) {
    const policy = inForce(this.world.policies, micros(line.closed_at));
    const value = this.world.index.worth(policy, "deposit", line.chain, line.asset, at);
    return value && { fixing: this.world.index.number(policy, at), micro: (BigInt(line.amount) * value[0]) / value[1], text: fractionText(value) };
  }

  credited(entry) {
    const [id, suffix] = entry.payload.subject.split("/");
    const line = this.deposits.get(id);
    need(line && (suffix ? suffix === "assigned" && line.suspense && !line.assigned : line.entry_seq === entry.seq),
      "deposit_entry", entry.payload.subject, "no such deposit");
    const at = micros(entry.payload.at);
    const credit = this.credit(line, at);
    need(credit && line.micro_per_unit === credit.text, "deposit_rate", id, "not the policy's value");
    need(line.credited === String(credit.micro) && credit.micro > 0n, "deposit_credit", id,
      `worth ${credit.micro} microCU`);
    need(line.fixing === credit.fixing, "deposit_rate", id, "another fixing");
    const { tx, tx_index: index } = line;
    const facts = { ...(suffix ? { tx, index } : this.facts(line)), micro_per_unit: credit.text,
      ...(credit.fixing === null ? {} : { fixing: credit.fixing }) };
    if (credit.fixing !== null) this.world.index.deposited(line.party, at, credit.micro);
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

  facts({ chain, tx, tx_index: index, sender, sender_reference: tag, reference }) {
    const facts = { network: this.world.chains.get(chain)?.network, tx, index, sender };
    return { ...facts, ...(reference === null ? {} : { reference }), ...(tag === null ? {} : { sender_reference: tag }) };
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
    need(!known || !(this.credit(line, micros(entry.payload.at))?.micro > 0n), "deposit_party", line.id, "its reference names a participant");
    line.suspense = true;
  }

  payout(line) {
    need(!this.payouts.has(line.id), "payout_unfounded", line.id, "it came before");
    need(Object.hasOwn(NAMES, line.payout_kind), "payout_kind", line.id, line.payout_kind);
    need((line.payout_kind === "withdrawal") === (line.micro_per_unit !== null), "payout_kind", line.id, "a conversion");
    need((line.payout_kind === "refund") === (line.deposit !== null), "payout_kind", line.id, "a deposit");
    const found = { ...line };
    if (line.payout_kind === "earnings") found.position = this.promised(line);
    if (line.payout_kind === "withdrawal") {
      need(this.world.parties.get(line.party)?.party_kind === "consumer", "payout_unfounded", line.id, "no consumer's");
    }
    if (line.payout_kind === "refund") this.refunded(line);
    this.payouts.set(line.id, found);
  }

  promised(line) {
    const position = this.world.windows.all.get(line.window)?.positions.find((found) => found.party === line.party);
    need(position, "payout_unfounded", line.id, "no position promises it");
    const told = [line.chain, line.asset, line.amount, line.micro, line.fee, line.fixing, line.own_rate];
    const { fixing } = this.world.windows.all.get(line.window);
    need(same(told, [position.chain, position.asset, position.amount, position.payout, "0", fixing, false]),
      "payout_mismatch",
      line.id, "not the position's");
    need(position.plannedAt === undefined, "payout_unfounded", line.id, "it was paid before");
    return position;
  }

  // All of a deposit that names nobody goes to its sender; a refund that failed leaves it where it was.
  refunded(line) {
    const deposit = this.deposits.get(line.deposit);
    need(deposit?.suspense && deposit.party === null && !deposit.back, "payout_unfounded", line.id, "not in suspense");
    const told = [line.chain, line.asset, line.amount, line.address, line.reference, line.party, line.micro, line.fee];
    const { chain, asset, amount, sender, sender_reference: tag } = deposit;
    need(line.fixing === null && !line.own_rate, "payout_mismatch", line.id, "a refund is converted by nothing");
    need(same(told, [chain, asset, amount, sender, tag, null, "0", "0"]), "payout_mismatch", line.id,
      "not what came, or not to its sender");
    deposit.back = line.state !== "failed";
  }

  // policy.md: fee, conversion and minimum are those of the policy in force when the withdrawal was booked.
  withdrawn(line, at) {
    const policy = inForce(this.world.policies, micros(at));
    const value = this.rate(line, policy, micros(at));
    need(value && line.micro_per_unit === fractionText(value), "payout_mismatch", line.id, "not the policy's value");
    const [minimum, fee] = policy.withdrawals;
    const [amount, micro] = [BigInt(line.amount), BigInt(line.micro)];
    const [up, down] = value;
    need(BigInt(line.fee) === fee && amount === (micro * down) / up && micro === (amount * up + down - 1n) / down,
      "payout_mismatch", line.id, "not what its microCU pay for, or another fee");
    need((micro + fee - minimum) * down + up > 0n, "payout_mismatch", line.id, "below the minimum");
  }

  // value.md: an own rate, when it is better and fresh money covers what was asked for, which may be a unit more.
  rate(line, policy, at) {
    const { index } = this.world;
    const [number, usual] = [index.number(policy, at), index.worth(policy, "withdrawal", line.chain, line.asset, at)];
    need(line.fixing === number, "payout_mismatch", line.id, "another fixing");
    const fresh = number === null || !usual ? null : index.fresh(line.party, policy, at);
    const own = fresh && this.world.value(policy, line.chain, line.asset, fresh.price);
    const asked = BigInt(line.micro) + (line.own_rate || !usual ? 0n : (usual[0] + usual[1] - 1n) / usual[1]);
    const [up, down] = own ?? [1n, 1n];
    const taken = (((asked * down) / up) * up + down - 1n) / down;
    const better = own !== null && taken <= fresh.left && own[0] * usual[1] < usual[0] * own[1];
    need(line.own_rate === better, "payout_mismatch", line.id, "its own rate");
    if (better) index.holder(line.party).back.push(line.back = { at, micro: BigInt(line.micro), failed: false });
    return better ? own : usual;
  }

  step(entry) {
    const { kind, subject, postings, facts, at, window } = entry.payload;
    const [name, step] = kind.split("_");
    const line = this.payouts.get(subject);
    need(line && NAMES[line.payout_kind] === name, "payout_entry", subject, "no such payout");
    need(step === "planned" ? !line.planned : line.planned && !line.ended, "payout_entry", subject, "out of turn");
    need(same(postings, this.moves(line)[step]), "payout_postings", subject, "the postings are not the payout's");
    if (step !== "planned") {
      need(facts.order === line.order && (step === "failed" || facts.transfer === line.transfer), "payout_facts",
        subject, "another order");
      if (step === "failed" && line.position) {
        this.world.failures.push({ seq: entry.seq, party: line.party, micro: BigInt(line.micro) });
      }
      if (step === "failed" && line.back) line.back.failed = true;
      line.ended = { state: step, facts };
      return;
    }
    const { chain, asset, amount, address, reference, deposit, micro_per_unit: worth } = line;
    const wanted = { chain, asset, amount, address, ...(reference === null ? {} : { reference }),
      ...(line.position ? { window: `win_${line.window}` } : {}), ...(worth === null ? {} : { micro_per_unit: worth }),
      ...(deposit === null ? {} : { deposit }), ...(line.fixing === null ? {} : { fixing: line.fixing }),
      ...(line.fixing === null || line.position ? {} : { own_rate: line.own_rate }) };
    need(same(facts, wanted), "payout_facts", subject, "the entry's facts are not the payout's");
    need(line.position || line.window === window, "payout_entry", subject, "it is of another window");
    if (line.payout_kind === "withdrawal") this.withdrawn(line, at);
    line.planned = true;
    if (line.position) line.position.plannedAt = entry.seq;
  }

  moves(line) {
    const asset = `${line.chain}/${line.asset}`;
    const treasury = [`treasury/${asset}`, asset, line.amount];
    if (line.payout_kind === "refund") {
      const [out, back] = [[`transit/${asset}`, asset, line.amount], [`suspense/${asset}`, asset, line.amount]];
      const left = [`transit/${asset}`, asset, `-${line.amount}`];
      return { planned: [[back[0], asset, `-${line.amount}`], out], failed: [left, back], settled: [left, treasury] };
    }
    const left = ["transit/CU", "CU", `-${line.micro}`];
    return {
      planned: [[line.party, "CU", `-${line.micro}`], ["transit/CU", "CU", line.micro]],
      failed: [left, [line.party, "CU", line.micro]],
      settled: [left, ["conversion/CU", "CU", line.micro], [`conversion/${asset}`, asset, `-${line.amount}`], treasury],
    };
  }

  withdrawalFee(entry) {
    const { kind, subject, postings, facts } = entry.payload;
    const line = this.payouts.get(subject);
    const back = kind === "withdrawal_fee_returned";
    need(line?.payout_kind === "withdrawal" && line.fee !== "0" && line.planned, "payout_fee", subject, "no such fee");
    need(back ? line.feeStep === 1 && line.ended?.state === "failed" : !line.feeStep && !line.ended, "payout_fee",
      subject, "out of turn");
    const wanted = back ? [["fees/CU", "CU", `-${line.fee}`], [line.party, "CU", line.fee]]
      : [[line.party, "CU", `-${line.fee}`], ["fees/CU", "CU", line.fee]];
    need(same(postings, wanted) && same(facts, {}), "payout_postings", subject, "not this fee");
    line.feeStep = back ? 2 : 1;
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
    need((order.step !== null) === (order.order_kind === "setup"), "order_kind", order.id, "a step is a set-up's");
    if (order.order_kind === "payout") this.transfers(order, mine);
    else if (order.order_kind === "anchor") this.anchor(order, mine);
    else need(order.order_kind === "setup" && !mine.length, "order_kind", order.id, order.order_kind);
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
    const transit = new Map();
    for (const payout of this.payouts.values()) {
      const wanted = payout.ended?.state ?? (payout.order === null ? "planned" : "ordered");
      need(payout.planned && payout.state === wanted, "payout_state", payout.id, `it is ${wanted}`);
      need(payout.order === null || this.orders.has(payout.order), "payout_order", payout.id, "no such order");
      const fee = payout.fee === "0" ? 0 : payout.ended?.state === "failed" ? 2 : 1;
      need((payout.feeStep ?? 0) === fee, "payout_fee", payout.id, "its fee");
      if (payout.ended) continue;
      const id = payout.payout_kind === "refund" ? `transit/${payout.chain}/${payout.asset}` : "transit/CU";
      const open = BigInt(payout.payout_kind === "refund" ? payout.amount : payout.micro);
      transit.set(id, (transit.get(id) ?? 0n) + open);
    }
    for (const id of new Set([...this.world.balances.keys(), ...transit.keys()])) {
      if (!id.startsWith("transit/")) continue;
      const open = transit.get(id) ?? 0n;
      need((this.world.balances.get(id) ?? 0n) === open, "transit_mismatch", id, `${open} is on its way`);
    }
    for (const window of this.world.windows.all.values()) {
      const right = window.anchored_at === null ? !window.anchors : window.anchors?.includes(window.anchored_at);
      need(right, "window_anchored", window.no, "anchored_at is not when an anchor became final");
    }
  }
}
