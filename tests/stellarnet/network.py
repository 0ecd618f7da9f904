"""A Stellar network in memory: accounts, trust lines, a queue, ledgers that close, real XDR and real signatures.

It is the other side of the adapter under test and shares no code with it: it decodes what it is given with the SDK,
checks every signature, sequence, bound and fee as a node does, and applies all of a transaction or nothing of it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from stellar_sdk import Account as SdkAccount
from stellar_sdk import Address as ScAddress
from stellar_sdk import Asset as SdkAsset
from stellar_sdk import (
    BumpSequence,
    ClaimClaimableBalance,
    CreateAccount,
    CreateClaimableBalance,
    FeeBumpTransactionEnvelope,
    IdMemo,
    Keypair,
    MuxedAccount,
    Network,
    Payment,
    TransactionBuilder,
    TransactionEnvelope,
    scval,
    xdr,
)
from stellar_sdk import Transaction as SdkTransaction
from stellar_sdk.exceptions import BadSignatureError
from stellar_sdk.memo import HashMemo, Memo, NoneMemo, ReturnHashMemo, TextMemo
from stellar_sdk.operation import Operation

from tests.stellarnet import claims
from tests.stellarnet.setting_up import SETTING_UP, set_up

PASSPHRASE = Network.TESTNET_NETWORK_PASSPHRASE
START = datetime(2026, 11, 22, tzinfo=UTC)
FIRST_LEDGER = 1_000
LEDGER_SECONDS = 5
RESERVE = 5_000_000
SPIKE, SPIKE_LEDGERS = 100_000, 10
MOST = (1 << 63) - 1

KINDS = (
    *("unreachable", "request_lost", "reply_lost", "duplicate", "late", "at_last", "restart", "failed"),
    *("fee_spike", "lagging", "gap", "try_again", "stranger"),
)


@dataclass
class Plan:
    """Which faults fire: those that are armed first, else by chance in millionths, from a seed."""

    seed: int = 0
    chances: Mapping[str, int] = field(default_factory=dict)
    armed: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def fires(self, kind: str) -> bool:
        assert kind in KINDS, kind
        hit = self.armed[kind] > 0 or self.dice.randrange(1_000_000) < self.chances.get(kind, 0)
        self.armed[kind] -= self.armed[kind] > 0
        self.fired[kind] += hit
        return hit


@dataclass
class Held:
    """An account, its trust lines and its data entries."""

    sequence: int
    balance: int
    signers: set[str]
    lines: dict[str, list[int]] = field(default_factory=dict)
    """By asset text: balance, limit, flags."""
    data: dict[str, bytes] = field(default_factory=dict)
    flags: int = 0
    home: str = ""


@dataclass
class Queued:
    raw: xdr.TransactionEnvelope
    names: tuple[str, str]
    inner: SdkTransaction
    payer: str
    fee: int
    not_before: int
    port: bool


@dataclass(frozen=True)
class Final:
    """A transaction in a closed ledger."""

    inner_hash: str
    outer_hash: str
    ledger: int
    closed_at: int
    position: int
    raw: xdr.TransactionEnvelope
    inner: SdkTransaction
    result: xdr.TransactionResult
    ok: bool
    fee: int


class StellarNet:
    """The network. Ledgers close when they are told to."""

    def __init__(self, plan: Plan | None = None, *, start: datetime = START) -> None:
        self.plan = plan or Plan()
        self.accounts: dict[str, Held] = {}
        self.closes: list[int] = [int(start.timestamp())]
        self.queue: list[Queued] = []
        self.final: dict[str, Final] = {}
        self.order: list[Final] = []
        self.events: list[dict[str, Any]] = []
        self.payments: list[dict[str, Any]] = []
        self.claimables: dict[str, tuple[SdkAsset, int, list[str]]] = {}
        """By their hash: asset, amount, and who may claim."""
        self.oldest = FIRST_LEDGER
        self.spike_until = 0
        self.emitting = True
        self.sponsored: set[str] = set()
        """Whose reserves somebody pays, while a transaction is applied."""
        self.thieves: dict[str, Keypair] = {}
        """Keys of ours that a stranger has too, by account."""

    # --- accounts -------------------------------------------------------------------------------------------------

    @property
    def tip(self) -> int:
        return FIRST_LEDGER + len(self.closes) - 1

    def closed_at(self, ledger: int) -> int:
        return self.closes[ledger - FIRST_LEDGER]

    def create(self, address: str, *, xlm: int = 10**10, signers: set[str] | None = None) -> None:
        self.accounts[address] = Held(self.tip << 32, xlm, signers or {address})

    def trust(self, address: str, asset: SdkAsset, *, balance: int = 0, limit: int = MOST, flags: int = 1) -> None:
        self.accounts[address].lines[text_of(asset)] = [balance, limit, flags]

    def balance(self, address: str, asset: str) -> int:
        found = self.accounts.get(address)
        if found is None:
            return 0
        return found.balance if asset == "XLM" else found.lines.get(asset, [0])[0]

    # --- submitting -----------------------------------------------------------------------------------------------

    @property
    def base_fee(self) -> int:
        return SPIKE if self.tip < self.spike_until else 100

    def submit(self, raw: xdr.TransactionEnvelope, *, port: bool = True) -> tuple[str, str]:
        """Status and error code, as sendTransaction would say."""
        if port and self.plan.fires("try_again"):
            return "TRY_AGAIN_LATER", ""
        if port and self.plan.fires("fee_spike"):
            self.spike_until = self.tip + SPIKE_LEDGERS
        if port and self.plan.fires("stranger"):
            self._steal(raw)
        queued, code = self._checked(raw, port)
        if queued is None:
            return ("DUPLICATE", "") if code == "DUPLICATE" else ("ERROR", code)
        for other in [each for each in self.queue if each.inner.source.account_id == queued.inner.source.account_id]:
            if other.inner.sequence != queued.inner.sequence:
                return "TRY_AGAIN_LATER", ""
            if queued.fee < 10 * other.fee:
                return "ERROR", "txINSUFFICIENT_FEE"
            self.queue.remove(other)
            queued.not_before = other.not_before
        if port:
            last = queued.inner.preconditions.ledger_bounds.max_ledger - 1  # type: ignore[union-attr]
            if self.plan.fires("at_last"):
                queued.not_before = last
            elif self.plan.fires("late"):
                queued.not_before = min(self.tip + 1 + self.plan.dice.randint(1, 6), last)
        self.queue.append(queued)
        return "PENDING", ""

    def _steal(self, raw: xdr.TransactionEnvelope) -> None:
        """Somebody with our key uses the slot for something of their own, and is quicker."""
        inner = _opened(raw)[1]
        key = self.thieves.get(inner.source.account_id)
        if key is None or self.accounts[inner.source.account_id].sequence >= inner.sequence:
            return
        account = SdkAccount(inner.source.account_id, inner.sequence - 1)
        made = TransactionBuilder(account, PASSPHRASE, 3_000_000).append_bump_sequence_op(0).set_timeout(0).build()
        made.sign(key)
        self.accounts[inner.source.account_id].balance += 3 * RESERVE
        self.queue = [each for each in self.queue if each.inner.source.account_id != inner.source.account_id]
        assert self.submit(made.to_xdr_object(), port=False)[0] == "PENDING"

    def _checked(self, raw: xdr.TransactionEnvelope, port: bool) -> tuple[Queued | None, str]:
        outer, inner = _opened(raw)
        inner_envelope = (
            outer.transaction.inner_transaction_envelope if outer else TransactionEnvelope(inner, PASSPHRASE)
        )
        names = (inner_envelope.hash().hex(), outer.hash().hex() if outer else inner_envelope.hash().hex())
        if any(each.names == names for each in self.queue):
            return None, "DUPLICATE"
        payer = outer.transaction.fee_source.account_id if outer else inner.source.account_id
        fee = outer.transaction.fee if outer else inner.fee
        code = self._invalid(inner, self.tip + 1, self.closes[-1]) or self._unpaid(inner, payer, fee, bool(outer))
        if not code and outer:
            code = self._unsigned(outer.signatures, outer.hash(), {payer})
        if not code:
            sources = {inner.source.account_id} | {each.source.account_id for each in inner.operations if each.source}
            signatures = (
                inner_envelope.signatures if outer else TransactionEnvelope.from_xdr_object(raw, PASSPHRASE).signatures
            )
            code = self._unsigned(signatures, inner_envelope.hash(), sources)
        if code:
            return None, code
        return Queued(raw, names, inner, payer, fee, 0, port), ""

    def _invalid(self, inner: SdkTransaction, ledger: int, closed_at: int) -> str:
        conditions = inner.preconditions
        if conditions and conditions.time_bounds and 0 < conditions.time_bounds.max_time < closed_at:
            return "txTOO_LATE"
        if conditions and conditions.ledger_bounds and 0 < conditions.ledger_bounds.max_ledger <= ledger:
            return "txTOO_LATE"
        held = self.accounts.get(inner.source.account_id)
        if held is None:
            return "txNO_ACCOUNT"
        return "" if inner.sequence == held.sequence + 1 else "txBAD_SEQ"

    def _unpaid(self, inner: SdkTransaction, payer: str, fee: int, bumped: bool) -> str:
        if fee < self.base_fee * (len(inner.operations) + bumped):
            return "txINSUFFICIENT_FEE"
        if self.accounts[payer].balance - 2 * RESERVE < fee:
            return "txINSUFFICIENT_BALANCE"
        return ""

    def _unsigned(self, signatures: list[Any], digest: bytes, sources: set[str]) -> str:
        """Every source is signed for, and no signature is idle."""
        used: set[int] = set()
        for source in sources:
            held = self.accounts.get(source)  # what an operation before makes signs by its own key
            signers = {source} if held is None else held.signers
            good = {n for n, each in enumerate(signatures) for key in signers if _verifies(key, digest, each)}
            if not good:
                return "txBAD_AUTH"
            used |= good
        return "" if len(used) == len(signatures) else "txBAD_AUTH_EXTRA"

    # --- closing --------------------------------------------------------------------------------------------------

    def close(self, *, seconds: int = LEDGER_SECONDS) -> int:
        self.closes.append(self.closes[-1] + seconds)
        if any(each.port for each in self.queue) and self.plan.fires("restart"):
            self.queue = [each for each in self.queue if not each.port]
        position = 0
        for each in list(self.queue):
            if each.not_before > self.tip:
                continue
            if self._invalid(each.inner, self.tip, self.closes[-1]) or self._unpaid(
                each.inner, each.payer, each.fee, each.names[0] != each.names[1]
            ):
                if each.fee >= self.base_fee * (len(each.inner.operations) + 1):
                    self.queue.remove(each)
                continue
            self.queue.remove(each)
            position += 1
            self._apply(each, position)
        return self.tip

    def _apply(self, queued: Queued, position: int) -> None:
        charged = self.base_fee * (len(queued.inner.operations) + (queued.names[0] != queued.names[1]))
        self.accounts[queued.payer].balance -= charged
        source = self.accounts[queued.inner.source.account_id]
        source.sequence = queued.inner.sequence
        before = {
            name: (held.balance, {k: list(v) for k, v in held.lines.items()}) for name, held in self.accounts.items()
        }
        frozen = queued.port and self.plan.fires("failed")
        culprit = self.plan.dice.randrange(len(queued.inner.operations)) if frozen else None
        results, moved = [], list[tuple[int, str, str, SdkAsset, int, Operation]]()
        ok = True
        self.sponsored = set()
        for index, operation in enumerate(queued.inner.operations):
            who = (operation.source or queued.inner.source).account_id
            result, good = self._operate(operation, who, index, moved, refuse=index == culprit)
            results.append(result)
            ok = ok and good
        if not ok:
            for name, (balance, lines) in before.items():
                self.accounts[name].balance, self.accounts[name].lines = balance, lines
            for name in self.accounts.keys() - before.keys():
                del self.accounts[name]
            moved = []
        made = _result(queued, charged, results, ok)
        done = Final(*queued.names, self.tip, self.closes[-1], position, queued.raw, queued.inner, made, ok, charged)
        self.final[queued.names[0]] = self.final[queued.names[1]] = done
        self.order.append(done)
        self._tell(done, queued.payer, moved)

    def _operate(
        self,
        operation: Operation,
        who: str,
        index: int,
        moved: list[tuple[int, str, str, SdkAsset, int, Operation]],
        *,
        refuse: bool,
    ) -> tuple[xdr.OperationResult, bool]:
        types = xdr.OperationType
        if isinstance(operation, BumpSequence):
            bump = xdr.BumpSequenceResultCode.BUMP_SEQUENCE_BAD_SEQ if refuse else xdr.BumpSequenceResultCode(0)
            return _inner(types.BUMP_SEQUENCE, bump_seq_result=xdr.BumpSequenceResult(bump)), not refuse
        if isinstance(operation, Payment):
            code = "NO_TRUST" if refuse else self._pay(who, operation.destination.account_id, operation, index, moved)
            paid = xdr.PaymentResultCode[f"PAYMENT_{code}"]
            return _inner(types.PAYMENT, payment_result=xdr.PaymentResult(paid)), code == "SUCCESS"
        if isinstance(operation, ClaimClaimableBalance):
            return claims.claim(self, operation, who, index, moved)
        if isinstance(operation, SETTING_UP):
            return set_up(self, operation, who)
        amount = units(operation.starting_balance if isinstance(operation, CreateAccount) else operation.amount)  # type: ignore[attr-defined]
        if isinstance(operation, CreateAccount):
            poor = amount < 2 * RESERVE and operation.destination not in self.sponsored
            code = "LOW_RESERVE" if refuse or poor else "SUCCESS"
            code = "ALREADY_EXIST" if operation.destination in self.accounts else code
            if code == "SUCCESS":
                self.accounts[who].balance -= amount
                self.create(operation.destination, xlm=amount)
                moved.append((index, who, operation.destination, SdkAsset.native(), amount, operation))
            created = xdr.CreateAccountResult(xdr.CreateAccountResultCode[f"CREATE_ACCOUNT_{code}"])
            return _inner(types.CREATE_ACCOUNT, create_account_result=created), code == "SUCCESS"
        assert isinstance(operation, CreateClaimableBalance), operation
        return claims.create(self, operation, who, amount, refuse=refuse)

    def _pay(
        self,
        who: str,
        to: str,
        operation: Payment,
        index: int,
        moved: list[tuple[int, str, str, SdkAsset, int, Operation]],
    ) -> str:
        asset, amount = operation.asset, units(operation.amount)
        if to not in self.accounts:
            return "NO_DESTINATION"
        if asset.issuer != who and self.balance(who, text_of(asset)) < amount:
            return "UNDERFUNDED"
        if not asset.is_native() and asset.issuer != to:
            line = self.accounts[to].lines.get(text_of(asset))
            if line is None:
                return "NO_TRUST"
            if not line[2] & 1:
                return "NOT_AUTHORIZED"
            if line[0] + amount > line[1]:
                return "LINE_FULL"
        if asset.issuer != who:
            self._add(who, asset, -amount)
        if asset.issuer != to:
            self._add(to, asset, amount)
        moved.append((index, who, to, asset, amount, operation))
        return "SUCCESS"

    def _add(self, address: str, asset: SdkAsset, amount: int) -> None:
        if asset.is_native():
            self.accounts[address].balance += amount
        else:
            self.accounts[address].lines[text_of(asset)][0] += amount

    def _tell(self, done: Final, payer: str, moved: list[tuple[int, str, str, SdkAsset, int, Operation]]) -> None:
        """Events of a closed transaction (CAP-67), and what Horizon says of its payments."""
        if not self.emitting:
            return self._list(done, moved)
        fee = [scval.to_symbol("fee"), scval.to_address(ScAddress(payer))]
        self._event(done, SdkAsset.native(), 0, 0, fee, scval.to_int128(done.fee))
        for nth, (index, sender, to, asset, amount, operation) in enumerate(moved, start=1):
            name = scval.to_string("native" if asset.is_native() else text_of(asset))
            parties = [scval.to_address(ScAddress(each)) for each in (sender, to)]
            kind = "mint" if asset.issuer == sender else "burn" if asset.issuer == to else "transfer"
            shown = parties if kind == "transfer" else parties[1:] if kind == "mint" else parties[:1]
            muxed = operation.destination.account_muxed_id if isinstance(operation, Payment) else None
            value: xdr.SCVal = scval.to_int128(amount)
            extra = scval.to_uint64(muxed) if muxed is not None else _memo_value(done.inner.memo)
            if isinstance(operation, ClaimClaimableBalance):
                extra = None
            if extra is not None and kind != "burn":
                value = scval.to_map({scval.to_symbol("amount"): value, scval.to_symbol("to_muxed_id"): extra})
            self._event(done, asset, index, nth, [scval.to_symbol(kind), *shown, name], value)
        return self._list(done, moved)

    def _event(
        self, done: Final, asset: SdkAsset, operation: int, nth: int, topics: list[xdr.SCVal], value: xdr.SCVal
    ) -> None:
        token = done.ledger << 32 | done.position << 12 | operation
        self.events.append(
            {
                "type": "contract",
                "ledger": done.ledger,
                "ledgerClosedAt": iso(done.closed_at),
                "contractId": asset.contract_id(PASSPHRASE),
                "id": f"{token:019d}-{nth:010d}",
                "operationIndex": operation,
                "transactionIndex": done.position,
                "txHash": done.outer_hash,
                "topic": [each.to_xdr() for each in topics],
                "value": value.to_xdr(),
            }
        )

    def _list(self, done: Final, moved: list[tuple[int, str, str, SdkAsset, int, Operation]]) -> None:
        for index, sender, to, asset, amount, operation in moved:
            row: dict[str, Any] = {
                "id": str(done.ledger << 32 | done.position << 12 | index + 1),
                "paging_token": str(done.ledger << 32 | done.position << 12 | index + 1),
                "transaction_successful": True,
                "type": "payment",
                "created_at": iso(done.closed_at),
                "transaction_hash": done.outer_hash,
                "from": sender,
                "to": to,
                "amount": f"{amount // 10**7}.{amount % 10**7:07d}",
                "transaction": memo_of(done.inner.memo),
                **asset_of(asset),
            }
            source = operation.source or done.inner.source
            row["source_account"] = source.account_id
            if source.account_muxed_id is not None:
                row["source_account_muxed_id"] = str(source.account_muxed_id)
            if isinstance(operation, CreateAccount):
                row |= {"type": "create_account", "account": to, "funder": sender, "starting_balance": row["amount"]}
            elif isinstance(operation, Payment) and operation.destination.account_muxed_id is not None:
                row |= {"to_muxed_id": str(operation.destination.account_muxed_id)}
            elif isinstance(operation, ClaimClaimableBalance):
                row |= {"type": "claim_claimable_balance", "balance_id": operation.balance_id, "claimant": to}
            self.payments.append(row)

    # --- what a stranger does -------------------------------------------------------------------------------------

    def send(
        self, key: Keypair, made: list[Operation], memo: Memo | None = None, *, source: MuxedAccount | None = None
    ) -> str:
        """Sign and queue a transaction of somebody else's; returns its hash. Final after a close."""
        held = self.accounts[key.public_key]
        waiting = sum(each.inner.source.account_id == key.public_key for each in self.queue)
        builder = TransactionBuilder(SdkAccount(source or key.public_key, held.sequence), PASSPHRASE, 2 * SPIKE)
        for each in made:
            builder.append_operation(each)
        if memo is not None:
            builder.add_memo(memo)
        envelope = builder.set_timeout(0).build()
        envelope.sign(key)
        assert not waiting, "one transaction of an account a ledger"
        assert self.submit(envelope.to_xdr_object(), port=False)[0] == "PENDING"
        return envelope.hash().hex()


def text_of(asset: SdkAsset) -> str:
    return "XLM" if asset.is_native() else f"{asset.code}:{asset.issuer}"


def asset_of(asset: SdkAsset) -> dict[str, str]:
    if asset.is_native():
        return {"asset_type": "native"}
    kind = "credit_alphanum4" if len(asset.code) <= 4 else "credit_alphanum12"
    return {"asset_type": kind, "asset_code": asset.code, "asset_issuer": str(asset.issuer)}


def units(text: str) -> int:
    return int(Decimal(text).scaleb(7))


def iso(seconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def memo_of(memo: Memo) -> dict[str, str]:
    """As Horizon shows it."""
    if isinstance(memo, IdMemo):
        return {"memo_type": "id", "memo": str(memo.memo_id)}
    if isinstance(memo, TextMemo):
        return {"memo_type": "text", "memo": memo.memo_text.decode()}
    return {"memo_type": "none" if isinstance(memo, NoneMemo) else "hash"}


def _memo_value(memo: Memo) -> xdr.SCVal | None:
    """As an event shows it."""
    if isinstance(memo, IdMemo):
        return scval.to_uint64(memo.memo_id)
    if isinstance(memo, TextMemo):
        return scval.to_string(memo.memo_text)
    if isinstance(memo, (HashMemo, ReturnHashMemo)):
        return scval.to_bytes(memo.memo_hash if isinstance(memo, HashMemo) else memo.memo_return)
    return None


def _opened(raw: xdr.TransactionEnvelope) -> tuple[FeeBumpTransactionEnvelope | None, SdkTransaction]:
    if raw.fee_bump is None:
        return None, TransactionEnvelope.from_xdr_object(raw, PASSPHRASE).transaction
    outer = FeeBumpTransactionEnvelope.from_xdr_object(raw, PASSPHRASE)
    return outer, outer.transaction.inner_transaction_envelope.transaction


def _verifies(key: str, digest: bytes, signature: Any) -> bool:
    pair = Keypair.from_public_key(key)
    if signature.signature_hint != pair.signature_hint():
        return False
    try:
        pair.verify(digest, signature.signature)
    except BadSignatureError:
        return False
    return True


def _inner(kind: xdr.OperationType, **body: Any) -> xdr.OperationResult:
    return xdr.OperationResult(xdr.OperationResultCode.opINNER, tr=xdr.OperationResultTr(kind, **body))


def _result(queued: Queued, fee: int, results: list[xdr.OperationResult], ok: bool) -> xdr.TransactionResult:
    code = xdr.TransactionResultCode.txSUCCESS if ok else xdr.TransactionResultCode.txFAILED
    if queued.raw.fee_bump is None:
        body = xdr.TransactionResultResult(code, results=results)
        return xdr.TransactionResult(xdr.Int64(fee), body, xdr.TransactionResultExt(0))
    inner = xdr.InnerTransactionResult(
        xdr.Int64(0), xdr.InnerTransactionResultResult(code, results=results), xdr.InnerTransactionResultExt(0)
    )
    pair = xdr.InnerTransactionResultPair(xdr.Hash(bytes.fromhex(queued.names[0])), inner)
    outer = (
        xdr.TransactionResultCode.txFEE_BUMP_INNER_SUCCESS if ok else xdr.TransactionResultCode.txFEE_BUMP_INNER_FAILED
    )
    return xdr.TransactionResult(
        xdr.Int64(fee), xdr.TransactionResultResult(outer, inner_result_pair=pair), xdr.TransactionResultExt(0)
    )


def failed_result(code: str) -> str:
    """A transaction's result before it reached any ledger, in base64 XDR."""
    body = xdr.TransactionResultResult(xdr.TransactionResultCode[code])
    return xdr.TransactionResult(xdr.Int64(0), body, xdr.TransactionResultExt(0)).to_xdr()


def payments_with(net: StellarNet, memo: bytes) -> Iterator[Final]:
    """Final transactions whose memo is these 32 bytes."""
    for each in net.order:
        if isinstance(each.inner.memo, HashMemo) and each.inner.memo.memo_hash == memo:
            yield each
