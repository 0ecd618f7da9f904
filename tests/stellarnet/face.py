"""What a Stellar RPC node and a Horizon server say about a `StellarNet`, over real sockets, with everything that goes
wrong between them and us."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stellar_sdk import Keypair, StrKey, xdr

from tests.loopback import Answer, HangUp, Request
from tests.stellarnet.network import (
    FIRST_LEDGER,
    PASSPHRASE,
    Held,
    StellarNet,
    failed_result,
    iso,
    memo_of,
)

LAG = 6
ENTRY_TYPES = xdr.LedgerEntryType


class RpcFace:
    """One RPC node."""

    def __init__(self, net: StellarNet, *, passphrase: str = PASSPHRASE, faulty: bool = True) -> None:
        self.net = net
        self.passphrase = passphrase
        self.faulty = faulty
        self.asked: list[str] = []
        self.asks = 100
        """Stroops an operation that getFeeStats says got into the last ledgers at least."""
        self.closes_itself = False
        """Whether a ledger closes at every look at it."""

    async def answer(self, request: Request) -> Answer:
        asked = json.loads(request.body)
        method, params = asked["method"], asked.get("params") or {}
        self.asked.append(method)
        if self._fires("unreachable"):
            raise HangUp
        if self.closes_itself and method != "getNetwork":
            self.net.close()
        found = getattr(self, f"_{method}")(params)
        if isinstance(found, Answer):
            return found
        name = "error" if "code" in found and "message" in found else "result"
        return Answer.json({"jsonrpc": "2.0", "id": asked["id"], name: found})

    def _fires(self, kind: str) -> bool:
        return self.faulty and self.net.plan.fires(kind)

    def _seen(self) -> int:
        """The last ledger that this answer is from."""
        return max(self.net.tip - LAG, FIRST_LEDGER) if self._fires("lagging") else self.net.tip

    def _getNetwork(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"passphrase": self.passphrase, "protocolVersion": 23}

    def _getTransaction(self, params: dict[str, Any]) -> dict[str, Any]:
        latest = self._seen()
        done = self.net.final.get(params["hash"])
        oldest = self.net.oldest
        if int(params["hash"], 16) and self._fires("gap"):
            oldest, done = latest, None
        seen: dict[str, Any] = {
            "latestLedger": latest,
            "latestLedgerCloseTime": str(self.net.closed_at(latest)),
            "oldestLedger": oldest,
            "oldestLedgerCloseTime": str(self.net.closed_at(oldest)),
        }
        if done is None or not oldest <= done.ledger <= latest:
            return {"status": "NOT_FOUND", **seen}
        return {
            "status": "SUCCESS" if done.ok else "FAILED",
            "ledger": done.ledger,
            "createdAt": str(done.closed_at),
            "resultXdr": done.result.to_xdr(),
            "envelopeXdr": done.raw.to_xdr(),
            **seen,
        }

    def _getLedgerEntries(self, params: dict[str, Any]) -> dict[str, Any]:
        assert len(params["keys"]) <= 200, "a node takes 200 keys"
        found = []
        for text in params["keys"]:
            data = entry_of(self.net, xdr.LedgerKey.from_xdr(text))
            if data is not None:
                found.append({"key": text, "xdr": data.to_xdr(), "lastModifiedLedgerSeq": FIRST_LEDGER})
        return {"entries": found, "latestLedger": self.net.tip}

    def _getFeeStats(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"inclusionFee": {"min": str(self.asks), "p90": str(self.asks), "max": str(self.net.base_fee)}}

    def _sendTransaction(self, params: dict[str, Any]) -> dict[str, Any] | Answer:
        if self._fires("request_lost"):
            raise HangUp
        raw = xdr.TransactionEnvelope.from_xdr(params["transaction"])
        status, code = self.net.submit(raw, port=self.faulty)
        if self._fires("duplicate"):
            status, code = self.net.submit(raw, port=self.faulty)
        if self._fires("reply_lost"):
            if self.net.plan.dice.random() < 0.5:
                raise HangUp
            return Answer(b"gateway timeout", 504)
        found = {"status": status, "hash": "", "latestLedger": self.net.tip}
        return {**found, "errorResultXdr": failed_result(code)} if code else found

    def _getEvents(self, params: dict[str, Any]) -> dict[str, Any]:
        latest, page = self.net.tip, params["pagination"]
        start = params.get("startLedger") or int(page["cursor"].partition("-")[0]) >> 32
        if self._fires("gap") or not self.net.oldest <= start <= latest:
            return {"code": -32600, "message": f"startLedger must be within the ledger range: {latest} - {latest}"}
        (wanted,) = params["filters"]
        last = min(start + 10_000 - 1, latest)
        found = [
            each
            for each in self.net.events
            if start <= each["ledger"] <= last
            and ("cursor" not in page or each["id"] > page["cursor"])
            and each["contractId"] in wanted["contractIds"]
            and any(_matches(each["topic"], topics) for topics in wanted["topics"])
        ]
        rows = sorted(found, key=lambda each: each["id"])[: page["limit"]]
        cursor = rows[-1]["id"] if len(rows) == page["limit"] else f"{last << 32 | 0xFFFFFFFF:019d}-4294967295"
        return {"events": rows, "cursor": cursor, "latestLedger": latest}

    def _getTransactions(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"transactions": [{} for each in self.net.order if each.ledger >= params["startLedger"]][:1]}


class HorizonFace:
    """One Horizon server."""

    def __init__(self, net: StellarNet, *, passphrase: str = PASSPHRASE) -> None:
        self.net = net
        self.passphrase = passphrase
        self.oldest = FIRST_LEDGER
        self.asked: list[str] = []

    async def answer(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        self.asked.append(parts.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/":
            return Answer.json(
                {
                    "network_passphrase": self.passphrase,
                    "history_elder_ledger": self.oldest,
                    "history_latest_ledger": self.net.tip,
                    "history_latest_ledger_closed_at": iso(self.net.closed_at(self.net.tip)),
                }
            )
        _, _, address, what = parts.path.split("/")
        if what == "effects":
            return Answer.json({"_embedded": {"records": self._effects(address)}})
        rows = self._operations(address) if what == "operations" else self._transactions(address)
        found = [row for row in rows if int(row["paging_token"]) > int(query["cursor"])][: int(query["limit"])]
        return Answer.json({"_embedded": {"records": found}})

    def _operations(self, address: str) -> list[dict[str, Any]]:
        """What moved money, and of a claim only what its operation states."""
        found = [row for row in self.net.payments if address in (row["from"], row["to"])]
        hidden = {"from", "to", "amount", "asset_type", "asset_code", "asset_issuer"}
        return [
            {name: value for name, value in row.items() if name not in hidden}
            if row["type"] == "claim_claimable_balance"
            else row
            for row in found
        ]

    def _effects(self, operation: str) -> list[dict[str, Any]]:
        """Of a claim: what was credited to whom."""
        (row,) = [row for row in self.net.payments if row["id"] == operation]
        asset = f"{row['asset_code']}:{row['asset_issuer']}" if "asset_code" in row else "native"
        stated = {"account": row["to"], "asset": asset, "amount": row["amount"], "balance_id": row["balance_id"]}
        return [{"type": "claimable_balance_claimed", **stated}, {"type": "account_credited", **stated}]

    def _transactions(self, address: str) -> list[dict[str, Any]]:
        return [
            {
                "paging_token": str(each.ledger << 32 | each.position << 12),
                "hash": each.outer_hash,
                "ledger": each.ledger,
                "created_at": iso(each.closed_at),
                "successful": each.ok,
                "envelope_xdr": each.raw.to_xdr(),
                "result_xdr": each.result.to_xdr(),
                **memo_of(each.inner.memo),
            }
            for each in self.net.order
            if address in _parties(each.raw.to_xdr_bytes(), address)
        ]


def _parties(raw: bytes, address: str) -> tuple[str, ...]:
    return (address,) if StrKey.decode_ed25519_public_key(address) in raw else ()


def _matches(topics: list[str], wanted: list[str]) -> bool:
    return len(topics) == len(wanted) and all(w in ("*", t) for t, w in zip(topics, wanted, strict=True))


def entry_of(net: StellarNet, key: xdr.LedgerKey) -> xdr.LedgerEntryData | None:
    """A ledger entry as a node gives it."""
    if key.type == ENTRY_TYPES.ACCOUNT:
        assert key.account is not None
        address = _address(key.account.account_id)
        held = net.accounts.get(address)
        return None if held is None else xdr.LedgerEntryData(ENTRY_TYPES.ACCOUNT, account=_account(address, held))
    if key.type == ENTRY_TYPES.DATA:
        assert key.data is not None
        address, name = _address(key.data.account_id), key.data.data_name
        held = net.accounts.get(address)
        value = held.data.get(name.string64.decode()) if held else None
        if value is None:
            return None
        made = xdr.DataEntry(_id(address), name, xdr.DataValue(value), xdr.DataEntryExt(0))
        return xdr.LedgerEntryData(ENTRY_TYPES.DATA, data=made)
    assert key.trust_line is not None
    address, asset = _address(key.trust_line.account_id), key.trust_line.asset
    body = asset.alpha_num4 or asset.alpha_num12
    assert body is not None
    code = (body.asset_code.asset_code4 if asset.alpha_num4 else body.asset_code.asset_code12).rstrip(b"\0").decode()  # type: ignore[union-attr]
    held = net.accounts.get(address)
    line = held.lines.get(f"{code}:{_address(body.issuer)}") if held else None
    if line is None:
        return None
    entry = xdr.TrustLineEntry(
        _id(address), asset, xdr.Int64(line[0]), xdr.Int64(line[1]), xdr.Uint32(line[2]), xdr.TrustLineEntryExt(0)
    )
    return xdr.LedgerEntryData(ENTRY_TYPES.TRUSTLINE, trust_line=entry)


def _account(address: str, held: Held) -> xdr.AccountEntry:
    return xdr.AccountEntry(
        _id(address),
        xdr.Int64(held.balance),
        xdr.SequenceNumber(xdr.Int64(held.sequence)),
        xdr.Uint32(len(held.lines) + len(held.data)),
        None,
        xdr.Uint32(held.flags),
        xdr.String32(held.home.encode()),
        xdr.Thresholds(bytes([address in held.signers, 0, 0, 0])),
        [xdr.Signer(_key(each), xdr.Uint32(1)) for each in sorted(held.signers - {address})],
        xdr.AccountEntryExt(0),
    )


def _id(address: str) -> xdr.AccountID:
    return Keypair.from_public_key(address).xdr_account_id()


def _key(address: str) -> xdr.SignerKey:
    raw = xdr.Uint256(StrKey.decode_ed25519_public_key(address))
    return xdr.SignerKey(xdr.SignerKeyType.SIGNER_KEY_TYPE_ED25519, ed25519=raw)


def _address(account: xdr.AccountID) -> str:
    raw = account.account_id.ed25519
    assert raw is not None
    return StrKey.encode_ed25519_public_key(raw.uint256)
