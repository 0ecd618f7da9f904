// Windows: obligations, positions and netting, payouts, checkpoints with their trees (docs/reference/checkpoint.md).
import {
  Tree, canonical, digest, documentSigned, leafHash, members, micros, need, parseCanonical, same, sumLeaf,
} from "./formats.mjs";
import { inForce } from "./rating.mjs";

const ORDER = ["open", "closed", "netted", "checkpointed", "planned"];
const DOCUMENT = `type window opened_at closed_at first_seq last_seq previous journal records positions liabilities
  rates policy governance totals payouts`.split(/\s+/);
const OWED = /^(acc_|prv_|transit\/)/;
const hex = (bytes) => bytes.toString("hex");
const least = (one, other) => (one < other ? one : other);
const isProvider = (id) => id.startsWith("prv_");

export class Windows {
  constructor(world) {
    Object.assign(this, { world, all: new Map(), current: null, previous: null, owners: new Map() });
    Object.assign(this, { erasures: new Set(), retired: new Map() });
  }

  open(line) {
    const { world, current: before } = this;
    need(line.no === (before?.no ?? 0) + 1, "window_gap", line.no, "windows are not numbered one after another");
    need(ORDER.includes(line.state) && (line.state === "open") === (line.closed_at === null), "window_state", line.no,
      "state");
    need(line.first_seq === world.head.seq + 1, "window_range", line.no, "it does not begin where the journal is");
    if (before) {
      this.end();
      need(before.closed_at === line.opened_at, "window_span", line.no, "it does not begin when the one before ends");
      need(before.last_seq === world.head.seq, "window_range", before.no, "last_seq is not its last entry");
    }
    this.current = { ...line, salts: new Map(), obligations: new Map(), positions: [], reports: 0, records: 0,
      posted: 0n,
      charged: 0n, shown: 0, failed: [] };
    this.all.set(line.no, this.current);
  }

  // What later entries cannot change any more: the obligations, the tree, the balances at the close.
  end() {
    const { tree, balances } = this.world;
    const window = this.current;
    const more = [...window.salts.values()].some((each) => Array.isArray(each) && each.length);
    need(!more, "salt_erased", window.no, "more leaf hashes than records");
    const left = this.retired.get(window.no);
    need(!left || (window.state === "planned" && left.records === window.records && left.reports === window.reports),
      "retention_rows", window.no, "what has left is not what there was");
    need(window.shown === window.obligations.size, "obligation_missing", window.no, "a pair has no obligation line");
    Object.assign(window, { size: tree.size, root: tree.root(), atClose: new Map(balances),
      parties: this.net(window) });
    const charged = new Map();
    for (const { consumer, posted } of window.obligations.values()) {
      charged.set(consumer, (charged.get(consumer) ?? 0n) + posted);
    }
    this.world.volumes.push({ closed: micros(window.closed_at), charged });
  }

  erasure(line) {
    need(line.consumer.startsWith("acc_") && !this.erasures.has(line.consumer), "erasure_party", line.consumer, "");
    this.erasures.add(line.consumer);
  }

  retention(line) {
    need(!this.retired.has(line.window), "retention_window", line.window, "twice");
    this.retired.set(line.window, line);
  }

  // A key, or of a consumer that asked to be forgotten the leaf hashes that the key made.
  salt(line) {
    const { current } = this;
    need(line.window === current.no && !current.salts.has(line.consumer), "salt_repeated", line.consumer, "salt");
    need((line.key === null) !== (line.hashes === null), "salt_erased", line.consumer, "a key or hashes");
    if (line.key === null) {
      need(this.erasures.has(line.consumer) && current.state === "planned" && /^([0-9a-f]{64})+$/.test(line.hashes),
        "salt_erased", line.consumer, "nobody asked for it, or these are no hashes");
      current.salts.set(line.consumer, line.hashes.match(/.{64}/g).map((each) => Buffer.from(each, "hex")));
    } else {
      current.salts.set(line.consumer, Buffer.from(line.key, "hex"));
    }
  }

  obligation(line) {
    const owed = this.current.obligations.get(`${line.provider} ${line.consumer}`);
    need(owed && line.window === this.current.no, "obligation_unfounded", line.consumer, "the window has no such pair");
    const subject = `${line.provider} ${line.consumer}`;
    for (const [name, value] of [["records", owed.records], ["carried_in", owed.carriedIn], ["pico", owed.pico],
      ["posted", owed.posted]]) {
      need(String(line[name]) === String(value), `obligation_${name}`, subject, `${name} is ${value}`);
    }
    this.current.shown += 1;
  }

  net(window) {
    const parties = new Map();
    const of = (id) => this.owners.get(id) ?? id;
    const at = (id) => parties.get(id) ?? parties.set(id, { spent: 0n, earned: 0n }).get(id);
    for (const { provider, consumer, posted } of window.obligations.values()) {
      at(of(consumer)).spent += posted;
      at(provider).earned += posted;
    }
    for (const [id, party] of parties) {
      party.net = party.earned - party.spent;
      party.netted = this.world.parties.get(id)?.account ? least(party.earned, party.spent) : 0n;
    }
    return parties;
  }

  netting(entry) {
    const window = this.all.get(entry.payload.facts.window);
    need(window?.parties && !window.nettedAt, "netting_order", entry.payload.subject,
      "the window is open or netted already");
    const wanted = [];
    for (const id of [...window.parties.keys()].sort()) {
      const { netted } = window.parties.get(id);
      if (netted) wanted.push([id, "CU", String(-netted)], [this.world.parties.get(id).account, "CU", String(netted)]);
    }
    need(same(entry.payload.postings, wanted), "netting_postings", entry.payload.subject,
      "not what linked companies owe themselves");
    need(entry.payload.subject === `win_${window.no}`, "netting_order", entry.payload.subject,
      "the subject is another window");
    const at = micros(entry.payload.at);
    const policy = inForce(this.world.policies, micros(window.closed_at));
    const fixing = this.world.index.number(policy, at);
    need(same(entry.payload.facts, { window: window.no, ...(fixing === null ? {} : { fixing }) }), "netting_facts",
      entry.payload.subject, "its facts");
    window.fixing = fixing;
    window.worth = (chain, asset) => window.worths.get(`${chain} ${asset}`) ?? null;
    window.worths = new Map([...this.world.chains].flatMap(([chain, { assets }]) => Object.keys(assets).map((asset) => (
      [`${chain} ${asset}`, this.world.index.worth(policy, "payout", chain, asset, at)]))));
    window.nettedAt = entry.seq;
  }

  position(line) {
    const window = this.all.get(line.window);
    need(window?.parties, "position_missing", line.party, "a position of a window that is not over");
    const last = window.positions.at(-1);
    need(!last || last.party < line.party, "position_order", line.party, "parties do not ascend");
    const found = window.parties.get(line.party) ?? { spent: 0n, earned: 0n, net: 0n, netted: 0n };
    need(window.parties.has(line.party) || line.payout !== "0", "position_mismatch", line.party,
      "no such party in the window");
    for (const name of ["spent", "earned", "net", "netted"]) {
      need(line[name] === String(found[name]), "position_mismatch", line.party, `${name} is ${found[name]}`);
    }
    this.world.disputes.tranche(window, line, found);
    window.positions.push(line);
    this.payout(window, line);
  }

  // What was due when the window was netted.
  due(window, party) {
    need(window.nettedAt, "netting_missing", window.no, "positions without a netting");
    let due = window.atClose.get(party) ?? 0n;
    for (const other of this.all.values()) {
      if (other.no > window.no) break;
      if (!(other.nettedAt <= window.last_seq)) due -= other.parties.get(party)?.netted ?? 0n;
      const position = other.no < window.no && other.positions.find((line) => line.party === party);
      if (position && !(position.plannedAt <= window.last_seq)) due -= BigInt(position.payout);
    }
    for (const { seq, party: who, micro } of this.world.failures) {
      if (who === party && seq > window.last_seq && seq < window.nettedAt) due += micro;
    }
    return this.world.disputes.after(due, window, party);
  }

  payout(window, line) {
    if (line.payout === "0") {
      need(line.amount === "0" && line.chain === null && line.asset === null, "position_payout", line.party,
        "nothing is paid");
      return;
    }
    const policy = inForce(this.world.policies, micros(window.closed_at));
    const value = line.asset === null ? null : window.worth?.(line.chain, line.asset);
    need(isProvider(line.party) && value, "position_payout", line.party, "it cannot be paid in this asset");
    const [n, m] = value;
    const due = this.due(window, line.party);
    const units = due < 0n ? 0n : (due * m) / n;
    const right = due >= policy.minimum && units > 0n && line.amount === String(units)
      && line.payout === String((units * n + m - 1n) / m);
    need(right, "position_payout", line.party, `due was ${due} microCU`);
  }

  checkpoint(line) {
    const window = this.all.get(line.window);
    const code = (name) => `checkpoint_${name}`;
    need(window?.parties && line.window === (this.previous?.window ?? 0) + 1, "checkpoint_window", line.window,
      "out of order");
    const document = parseCanonical(line.document, "checkpoint_canonical", line.window);
    members(document, DOCUMENT, "checkpoint_members", line.window);
    need(digest(line.document) === line.digest, "checkpoint_digest", line.window, "digest is not that of the document");
    documentSigned(line.document, line.signatures, this.world.signsAt(this.world.head.seq), "checkpoint_signature",
      line.window);
    need(!window.unsalted, "salt_missing", window.unsalted, `no key for the leaves of window ${line.window}`);
    const { rates } = document;
    const wanted = {
      type: "checkpoint/1", window: window.no, opened_at: window.opened_at, closed_at: window.closed_at,
      first_seq: window.first_seq, last_seq: window.last_seq, previous: this.previous?.digest ?? null,
      journal: { seq: this.world.head.seq, hash: this.world.head.hash },
      records: { size: window.size, root: hex(window.root), window: window.records },
      positions: this.positionTree(window), liabilities: this.liabilities(line),
      rates: this.world.tables.slice(0, rates.length).map((table) => ({ version: table.version,
        digest: table.digest })),
      policy: inForce(this.world.policies, micros(window.closed_at))?.digest,
      governance: this.world.governance.at_size(document.governance), totals: this.totals(window),
      payouts: this.payouts(window),
    };
    for (const name of DOCUMENT) {
      need(same(document[name], wanted[name]), code(name), line.window, `${name} is ${canonical(wanted[name])}`);
    }
    const published = this.world.tables.filter((table) => table.published <= micros(window.closed_at)).length;
    need(rates.length >= Math.max(published, this.previous?.rates ?? 0), "checkpoint_rates", line.window,
      "a table is missing");
    this.previous = { window: window.no, digest: line.digest, rates: rates.length };
    window.digest = line.digest;
    window.atClose = window.salts = null; // nothing asks for these any more
    window.obligations.clear();
  }

  positionTree(window) {
    this.allPresent(window);
    const tree = Tree.ofHashes();
    for (const { earned, net, party, payout, salt, spent } of window.positions) {
      tree.add(leafHash(canonical({ earned, net, party, payout, salt, spent, window: window.no })));
    }
    return { size: tree.size, root: hex(tree.root()) };
  }

  allPresent(window) {
    const shown = new Set(window.positions.map((line) => line.party));
    for (const id of window.parties.keys()) need(shown.has(id), "position_missing", id,
      `no position in window ${window.no}`);
  }

  liabilities(line) {
    const { balances } = this.world;
    const owed = [...balances].filter(([id, amount]) => OWED.test(id)
      && amount > 0n).sort(([a], [b]) => (a < b ? -1 : 1));
    const shown = line.liabilities.map(([id, amount]) => [id, amount]);
    owed.forEach(([id, amount], at) => {
      need(same(shown[at] ?? null, [id, String(amount)]), "checkpoint_liabilities", id,
        `${amount} is owed after window ${line.window}`);
    });
    need(shown.length === owed.length, "checkpoint_liabilities", line.window, "something is listed that is not owed");
    const tree = Tree.ofSums();
    for (const [id, amount, salt] of line.liabilities) tree.add(sumLeaf(id, BigInt(amount), salt));
    const { sum, hash } = tree.root();
    return { size: tree.size, root: hex(hash), total: String(sum) };
  }

  totals(window) {
    const net = [...window.parties.values()].reduce((sum, party) => (party.net > 0n ? sum + party.net : sum), 0n);
    return { reports: window.reports, records: window.records, charged_pico: String(window.charged),
      posted: String(window.posted),
      net: String(net) };
  }

  payouts(window) {
    const sums = new Map();
    for (const { chain, asset, amount } of window.positions.filter((line) => line.payout !== "0")) {
      const sum = sums.get(`${chain} ${asset}`) ?? { chain, asset, count: 0, amount: 0n };
      sums.set(`${chain} ${asset}`, { ...sum, count: sum.count + 1, amount: sum.amount + BigInt(amount) });
    }
    return [...sums.keys()].sort().map((key) => ({ ...sums.get(key), amount: String(sums.get(key).amount) }));
  }

  finish() {
    need(this.current?.state === "open", "window_missing", this.current?.no, "the last window is not open");
    for (const window of this.all.values()) {
      if (window === this.current) continue;
      const has = { netted: window.positions.length > 0, checkpointed: window.digest !== undefined };
      const reached = (state) => ORDER.indexOf(window.state) >= ORDER.indexOf(state);
      need(reached("checkpointed") === has.checkpointed, "checkpoint_missing", window.no, `it is ${window.state}`);
      need(reached("netted") || !has.netted, "window_state", window.no, "it has positions and is not netted");
      if (reached("netted")) this.allPresent(window);
      need(reached("netted") === (window.nettedAt !== undefined), "netting_missing", window.no, "netting");
      for (const line of window.positions) {
        const wanted = line.payout !== "0" && window.state === "planned";
        need(wanted === (line.plannedAt !== undefined), "payout_missing", line.party, `payout of window ${window.no}`);
      }
    }
  }
}
