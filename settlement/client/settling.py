"""Windows redone: their bounds, what everybody owes, positions, checkpoints with their three trees.

Memory: the parties of the windows that are not checkpointed yet, and one frontier of the record tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from settlement.client.books import CU, Books, EntryLine, account_kind, legs
from settlement.client.governing import GovernanceLog
from settlement.client.lines import Fields, Wrong, equal, require
from settlement.client.reports import WindowUsage
from settlement.client.rules import Rules, check_signatures
from settlement.client.solvency import OWED_TO
from settlement.core import canonical, liabilities, merkle, netting, policy
from settlement.core.checkpoints import Checkpoint, PayoutTotal, Totals, Tree, position_leaf
from settlement.core.conversion import Worth


@dataclass(slots=True)
class WindowState:
    """A window on its way from its first entry to its checkpoint."""

    no: int
    state: str
    opened_at: datetime
    closed_at: datetime | None
    first_seq: int
    last_seq: int | None
    usage: WindowUsage = field(default_factory=WindowUsage)
    stated: set[tuple[str, str]] = field(default_factory=set)
    positions: dict[str, netting.Position] = field(default_factory=dict)
    leaves: list[tuple[str, bytes]] = field(default_factory=list)
    payouts: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    records: Tree = field(default_factory=lambda: Tree(0, merkle.EMPTY_ROOT))

    @property
    def name(self) -> str:
        """How reports of faults call it."""
        return f"window {self.no}"


@dataclass(frozen=True, slots=True)
class Due:
    """A payout that a position promises."""

    chain: str
    asset: str
    amount: int
    micro: int
    fixing: int | None


Conversions = dict[tuple[str, str], Worth | None]
"""What payouts of a window convert at, by chain and asset: known when it is netted."""


@dataclass(slots=True)
class Earned:
    """What a provider has earned up to the last window that was decided over, less what was netted and paid out."""

    free: int = 0
    moved: list[tuple[int, int]] = field(default_factory=list)
    """(journal number, microCU) of payouts that failed, whose money came back then, and, below zero, of what disputes
    have taken or will."""
    tranches: dict[int, tuple[int, datetime]] = field(default_factory=dict)
    """What was held back of windows, and until when at least."""


class Windows:
    """All windows in order. `due` are payouts that positions promise and no payout line has taken up."""

    def __init__(self, rules: Rules, books: Books, tree: merkle.Frontier, log: GovernanceLog) -> None:
        self._rules = rules
        self._log = log
        self._books = books
        self._tree = tree
        self.current: WindowState | None = None
        self.links: dict[str, str] = {}
        self.due: dict[tuple[int, str], Due] = {}
        self.checkpoints: dict[int, str] = {}
        self.states: dict[int, str] = {}
        self.erasures: set[str] = set()
        self.retired: dict[int, tuple[int, int]] = {}
        """Windows whose rows have left the database: how many records and reports did."""
        self.anchored: dict[int, datetime | None] = {}
        self._waiting: dict[int, WindowState] = {}
        self._previous: str | None = None
        self._positioned = 0
        self._booked: dict[int, EntryLine] = {}
        self._conversions: dict[int, Conversions] = {}
        self._earned: dict[str, Earned] = {}
        self.closed: dict[int, datetime] = {}
        """When each window closed."""
        self.pairs: dict[tuple[str, str, int], int] = {}
        """What (consumer, provider, window) posted, for pairs that somebody disputes."""
        self.disputed: dict[tuple[str, int], list[list[int]]] = {}
        """Disputes over what a provider earned in a window: the entry that opened each, and the one that ended it."""

    def open(self, line: Fields) -> None:
        """The next window begins; the one before must be complete."""
        last = self.current
        self.end()
        window = WindowState(
            no=line.whole("no"),
            state=line.text("state"),
            opened_at=line.time("opened_at"),
            closed_at=line.time_or_none("closed_at"),
            first_seq=line.whole("first_seq"),
            last_seq=None if line["last_seq"] is None else line.whole("last_seq"),
        )
        name = window.name
        equal(window.no, last.no + 1 if last else 1, "window_gap", name, "its number")
        equal(window.first_seq, self._books.head.seq + 1, "window_range", name, "its first entry")
        if last is not None:
            equal(window.opened_at, last.closed_at, "window_span", name, "the time it opened at")
        is_open = window.state == "open"
        equal(window.last_seq is None, is_open, "window_state", name, "whether it has no last entry")
        equal(window.closed_at is None, is_open, "window_state", name, "whether it has no closing time")
        known = window.state in ("open", "closed", "netted", "checkpointed", "planned")
        require(known, "window_state", name, f"there is no state {window.state}")
        in_time = window.closed_at is None or window.closed_at >= window.opened_at
        require(in_time, "window_span", name, "it was closed before it was opened")
        self.current = window
        self.states[window.no] = window.state
        self.anchored[window.no] = line.time_or_none("anchored_at")

    def entered(self, entry: EntryLine) -> WindowState:
        """The window of a journal entry, which must be the current one."""
        window = self.present(entry.name)
        equal(entry.window, window.no, "entry_window", entry.name, "its window")
        inside = window.last_seq is None or entry.seq <= window.last_seq
        require(inside, "window_range", entry.name, f"window {window.no} ends before it")
        return window

    def present(self, subject: str) -> WindowState:
        """The current window. Raises Wrong when none was opened."""
        if self.current is None:
            raise Wrong("line_order", subject, "it comes before the first window")
        return self.current

    def add_erasure(self, line: Fields) -> None:
        """A consumer that asked to be forgotten: of its salt keys only leaf hashes may be left."""
        line.time("at")
        known = account_kind(line.text("consumer")) == "consumer" and line.text("consumer") not in self.erasures
        require(known, "erasure_party", line.subject, "it is no consumer, or came before")
        self.erasures.add(line.text("consumer"))

    def add_retention(self, line: Fields) -> None:
        """A window whose records and bodies are in segments; the lines of the export hold what is in them."""
        line.time("at"), line.digest("records_digest"), line.digest("reports_digest")
        window = line.whole("window")
        require(window > max(self.retired, default=0), "retention_window", line.subject, "windows ascend, each once")
        self.retired[window] = (line.whole("records"), line.whole("reports"))

    def add_salt(self, line: Fields) -> None:
        """The key of a consumer's leaves in the current window; before the window's reports."""
        window = self.present(line.subject)
        equal(line.whole("window"), window.no, "line_order", line.subject, "its window")
        consumer = line.text("consumer")
        usage = window.usage
        new = consumer not in usage.salt_keys and consumer not in usage.left
        require(new, "salt_repeated", line.subject, "this key came before")
        require((line["key"] is None) != (line["hashes"] is None), "salt_erased", line.subject, "a key or hashes, one")
        if line["hashes"] is None:
            usage.salt_keys[consumer] = line.hexadecimal("key", 32)
            return
        asked = consumer in self.erasures and window.state == "planned"
        require(asked, "salt_erased", line.subject, "its consumer did not ask for it, or its window is not settled")
        data = line.hexadecimal("hashes", len(line.text("hashes")) // 2)
        require(len(data) > 0 and len(data) % 32 == 0, "salt_erased", line.subject, "hashes have 32 bytes each")
        usage.left[consumer] = [data[at : at + 32] for at in range(len(data) - 32, -1, -32)]

    def check_obligation(self, line: Fields) -> None:
        """What the books say that a pair owes in the current window, against the records."""
        window = self.present(line.subject)
        equal(line.whole("window"), window.no, "line_order", line.subject, "its window")
        key = (line.text("consumer"), line.text("provider"))
        name = f"obligation of {key[0]} to {key[1]} in window {window.no}"
        pair = window.usage.pairs.get(key)
        if pair is None or key in window.stated:
            raise Wrong("obligation_unfounded", name, "the records have no such pair, or it came before")
        equal(line.whole("records"), pair.records, "obligation_records", name, "the number of records")
        equal(line.whole("carried_in"), pair.carried_in, "obligation_carry", name, "what was carried in")
        equal(line.amount("pico"), pair.pico, "obligation_pico", name, "the exact charge")
        equal(line.amount("posted"), pair.posted, "obligation_posted", name, "the posted charge")
        window.stated.add(key)

    def end(self) -> None:
        """The current window is over: its entries and its obligations must all have come."""
        window = self.current
        if window is None:
            return
        if window.last_seq is not None:
            equal(self._books.head.seq, window.last_seq, "window_range", window.name, "its last entry")
        missing = window.usage.pairs.keys() - window.stated
        require(not missing, "obligation_missing", window.name, f"no obligation of {sorted(missing)[:1]}")
        require(not any(window.usage.left.values()), "salt_erased", window.name, "it has more leaf hashes than records")
        left = self.retired.get(window.no)
        if left is not None:
            require(window.state == "planned", "retention_window", window.name, "it left before it was settled")
            have = (window.usage.records, window.usage.reports)
            equal(left, have, "retention_rows", window.name, "how many records and reports have left")
        if window.state == "open":
            return
        owed = [netting.Obligation(pair[0], pair[1], sums.posted) for pair, sums in window.usage.pairs.items()]
        window.positions = {position.party: position for position in netting.net(owed, self.links)}
        assert window.closed_at is not None, "only an open window has no closing time"
        self._rules.keep_volumes(window.closed_at, ((each.consumer, each.amount) for each in owed))
        window.records = Tree(self._tree.size, self._tree.root())
        for (consumer, provider), pair in window.usage.pairs.items():
            if (consumer, provider, window.no) in self.pairs:
                self.pairs[consumer, provider, window.no] = pair.posted
        assert window.closed_at is not None, "a window that is not open has its closing time"
        self.closed[window.no] = window.closed_at
        self._waiting[window.no] = window

    def net(self, entry: EntryLine) -> None:
        """Hold a netting entry to the positions of its window."""
        number = entry.subject.removeprefix("win_")
        window = self._waiting.get(int(number)) if number.isdigit() else None
        if window is None or entry.subject != f"win_{window.no}" or window.leaves:
            raise Wrong("netting_order", entry.name, f"{entry.subject} is not a closed window without a checkpoint")
        equal(dict(entry.net), self._netting_legs(window), "netting_postings", entry.name, "what it posts")
        assert window.closed_at is not None, "a window that waits for its checkpoint was closed"
        found = {key: self._rules.worth("payout", *key, window.closed_at, entry.at) for key in self._rules.decimals}
        fixing = next((each.fixing for each in found.values() if each is not None), None)
        stated = {"window": window.no} | ({} if fixing is None else {"fixing": fixing})
        equal(entry.facts.plain(), stated, "netting_facts", entry.name, "its facts")
        self._conversions[window.no] = found
        self._booked[window.no] = entry

    def moved(self, provider: str, seq: int, micro: int) -> None:
        """From that journal entry on so much more of a provider's balance is due, or less."""
        self._earned.setdefault(provider, Earned()).moved.append((seq, micro))

    def posted(self, consumer: str, provider: str, window: int) -> int:
        """What a pair that is disputed has posted for a window, so far."""
        if self.current is not None and self.current.no == window:
            pair = self.current.usage.pairs.get((consumer, provider))
            return 0 if pair is None else pair.posted
        return self.pairs[consumer, provider, window]

    def is_netted(self, window: int) -> bool:
        """Whether the netting of a window was booked."""
        return window in self._booked

    def check_position(self, line: Fields) -> None:
        """A party's position against its obligations, and its payout against its balance and the policy."""
        party = line.text("party")
        name = f"position of {party} in window {line.whole('window')}"
        window = self._waiting.get(line.whole("window"))
        if window is None or window.no < self._positioned:  # windows in between may have no positions
            raise Wrong("line_order", name, "its window is not closed yet, checkpointed already, or out of order")
        self._positioned = window.no
        require(not window.leaves or window.leaves[-1][0] < party, "position_order", name, "parties must ascend")
        found = window.positions.get(party, netting.Position(party, 0, 0, 0))
        for member in ("spent", "earned", "net", "netted"):
            equal(line.amount(member), getattr(found, member), "position_mismatch", name, member)
        self._hold_back(line, window, found, name)
        payout = self._payout(line, window, found, name)
        leaf = position_leaf(
            party=party,
            window=window.no,
            spent=found.spent,
            earned=found.earned,
            net=found.net,
            payout=payout,
            salt=line.hexadecimal("salt", 16),
        )
        window.leaves.append((party, merkle.leaf_hash(leaf)))

    def check_checkpoint(self, line: Fields) -> None:
        """A checkpoint against everything that was recomputed for its window."""
        document = line.text("document").encode()
        digest = canonical.digest(document)
        name = f"checkpoint {line.whole('window')}"
        equal(line.digest("digest"), digest, "checkpoint_digest", name, "its digest")
        check_signatures(line, document, self._rules.keychain.at(self._books.head.seq), "checkpoint_signature")
        window = self._waiting.get(line.whole("window"))
        if window is None or window.closed_at is None or window.no != len(self.checkpoints) + 1:
            raise Wrong("line_order", name, "its window is not closed yet, checkpointed already, or not the next")
        self._complete(window)
        stated = Fields.parse(document, name)
        expected = Fields.parse(self._expected(line, stated, window, window.closed_at, name).document(), name)
        for member in expected:
            equal(stated[member], expected[member], f"checkpoint_{member}", name, f"its {member}")
        equal(stated.keys(), expected.keys(), "checkpoint_members", name, "its members")
        require(canonical.encode(stated.plain()) == document, "checkpoint_canonical", name, "it is not canonical JSON")
        self._previous = self.checkpoints[window.no] = digest
        del self._waiting[window.no]

    def finish(self) -> None:
        """Nothing that is stated as done may be missing at the end of the export."""
        self.end()
        last = self.current
        require(
            last is not None and last.state == "open", "window_missing", "the last window", "there's no open window"
        )
        require(self.retired.keys() <= self.states.keys(), "retention_window", "the export", "a window is missing")
        for window in self._waiting.values():
            require(window.state in ("closed", "netted"), "checkpoint_missing", window.name, "it has no checkpoint")
            if window.state == "netted":
                self._complete(window)
        for no, party in self.due:
            planned = self.states[no] == "planned"
            require(not planned, "payout_missing", f"window {no}", f"the payout of {party} was never planned")

    def _complete(self, window: WindowState) -> None:
        """All positions came, and what parties owe themselves was booked; then the window's earnings are decided."""
        missing = window.positions.keys() - {party for party, _ in window.leaves}
        require(not missing, "position_missing", window.name, f"no position of {sorted(missing)[:1]}")
        self._netted_at(window, window.name)

    def _netted_at(self, window: WindowState, subject: str) -> int:
        """The number of the window's netting entry: the moment at which what is due was counted."""
        entry = self._booked.get(window.no)
        if entry is None:
            raise Wrong("netting_missing", subject, f"the netting of window {window.no} was never booked")
        return entry.seq

    def _netting_legs(self, window: WindowState) -> dict[tuple[str, str], int]:
        accounts = {provider: account for account, provider in self.links.items()}
        moved = []
        for position in window.positions.values():
            if position.netted:
                moved.append((position.party, CU, -position.netted))
                moved.append((accounts[position.party], CU, position.netted))
        return legs(*moved)

    def _hold_back(self, line: Fields, window: WindowState, found: netting.Position, name: str) -> None:
        """The tranche of the window's earnings, by the policy at its close."""
        assert window.closed_at is not None, "a window that waits for its checkpoint was closed"
        rules = self._rules.policy_at(window.closed_at)
        tranche = 0 if rules is None else rules[0].disputes.tranche(found.earned, found.netted)
        until = None if rules is None or not tranche else window.closed_at + rules[0].disputes.open_for
        stated = (line.amount("tranche"), line.time_or_none("held_until"))
        equal(stated, (tranche, until), "position_tranche", name, "what is held back, and until when")
        if until is not None:
            self._earned.setdefault(found.party, Earned()).tranches[window.no] = (tranche, until)

    def _held_back(self, earned: Earned, party: str, closed_at: datetime, before: int) -> int:
        """All tranches that are not due at the close of a window, disputes being those of a journal number."""
        kept = {}
        for window, (tranche, until) in earned.tranches.items():
            spans = self.disputed.get((party, window), ())
            if until > closed_at or any(opened < before and not 0 < ended < before for opened, ended in spans):
                kept[window] = (tranche, until)
        earned.tranches = kept  # what was due once can't be disputed any more
        return sum(tranche for tranche, _ in kept.values())

    def _payout(self, line: Fields, window: WindowState, found: netting.Position, name: str) -> int:
        """The payout in microCU, which must be all of the provider's balance that whole asset units can carry."""
        payout, amount = line.amount("payout"), line.amount("amount")
        earned = self._earned.setdefault(found.party, Earned())
        earned.free += found.earned - found.netted
        if payout == 0 and amount == 0 and line["chain"] is None and line["asset"] is None:
            return 0
        assert window.closed_at is not None, "a window that waits for its checkpoint was closed"
        chain, asset = line.text("chain"), line.text("asset")
        rules = self._rules.policy_at(window.closed_at)
        netted_at = self._netted_at(window, name)
        worth = self._conversions[window.no].get((chain, asset))
        if rules is None or worth is None:
            raise Wrong("position_payout", name, f"nothing gives {asset} on {chain} a worth")
        due = earned.free + sum(micro for seq, micro in earned.moved if seq < netted_at)
        due -= self._held_back(earned, found.party, window.closed_at, netted_at)
        enough = due >= rules[0].rails.least(chain, rules[0].minimum_payout)
        units = policy.to_units(due, worth.micro_per_unit)
        right = units == (amount, payout) and enough and amount > 0
        require(right, "position_payout", name, f"{amount} units for {payout} microCU is not what {due} is worth")
        earned.free -= payout
        self.due[window.no, found.party] = Due(chain, asset, amount, payout, worth.fixing)
        count, total = window.payouts.get((chain, asset), (0, 0))
        window.payouts[chain, asset] = (count + 1, total + amount)
        return payout

    def _expected(
        self, line: Fields, stated: Fields, window: WindowState, closed_at: datetime, name: str
    ) -> Checkpoint:
        usage, rules = window.usage, self._rules.policy_at(closed_at)
        if rules is None or window.last_seq is None:
            raise Wrong("checkpoint_policy", name, "no policy was in force when its window closed")
        root, size = self._liabilities(line, name)
        previous = self._previous
        positions = merkle.Frontier()
        positions.extend(leaf for _, leaf in window.leaves)
        tables = self._rules.tables
        known = len(stated.list("rates"))
        in_force = sum(table.effective_from <= closed_at for table in tables)
        return Checkpoint(
            window=window.no,
            opened_at=window.opened_at,
            closed_at=closed_at,
            first_seq=window.first_seq,
            last_seq=window.last_seq,
            previous=previous,
            journal=self._books.head,
            records=window.records,
            records_in_window=usage.records,
            positions=Tree(positions.size, positions.root()),
            liabilities=root,
            liabilities_size=size,
            rates=[(table.version, table.digest) for table in tables[: max(known, in_force)]],
            policy=rules[1],
            governance=self._log.stated(stated.object("governance"), name),
            totals=Totals(
                usage.reports,
                usage.records,
                usage.pico,
                usage.posted,
                netting.owed_after_netting(window.positions.values()),
            ),
            payouts=[PayoutTotal(*asset, count, total) for asset, (count, total) in sorted(window.payouts.items())],
        )

    def _liabilities(self, line: Fields, name: str) -> tuple[liabilities.Sum, int]:
        """The sum tree over the stated leaves, each of which must be the replayed balance of its account."""
        entries = []
        for leaf in line.list("liabilities"):
            if not isinstance(leaf, list) or len(leaf) != 3:
                raise Wrong("checkpoint_liabilities", name, "a leaf is not account, amount and salt")
            fields = Fields(dict(zip(("account", "amount", "salt"), leaf, strict=True)), name)
            entry = liabilities.Entry(fields.text("account"), fields.amount("amount"), fields.hexadecimal("salt", 16))
            balance = self._books.balance(entry.account)
            equal(entry.amount, balance, "checkpoint_liabilities", name, f"the liability to {entry.account}")
            kind = account_kind(entry.account)
            require(kind in OWED_TO, "checkpoint_liabilities", name, f"nothing is owed to {entry.account}")
            entries.append(entry)
        counted = {entry.account for entry in entries}
        for (account, asset), balance in self._books.balances.items():
            owed = asset == CU and balance and account_kind(account) in OWED_TO
            if owed and account not in counted:
                raise Wrong("checkpoint_liabilities", name, f"{account} is owed {balance} and is not in the tree")
        try:
            return liabilities.build(entries), len(entries)
        except Exception as error:  # noqa: BLE001 - Malformed by order or range
            raise Wrong("checkpoint_liabilities", name, str(error)) from None


def links_of(parties: Mapping[str, str | None]) -> dict[str, str]:
    """From the consumer account that a provider named to that provider."""
    return {account: provider for provider, account in parties.items() if account is not None}
