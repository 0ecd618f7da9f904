"""Keys of strangers on the simulated XRP Ledger: they sign as wallets do, with nothing of the adapter's."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from xrpl.core.binarycodec import decode, encode, encode_for_multisigning, encode_for_signing
from xrpl.core.keypairs import derive_classic_address

from tests.rippled.engine import Engine


class Wallet:
    """An ed25519 key by seed."""

    def __init__(self, seed: bytes | str) -> None:
        raw = seed.encode() if isinstance(seed, str) else seed
        self._key = Ed25519PrivateKey.from_private_bytes(sha256(raw).digest())
        self.public = "ED" + self._key.public_key().public_bytes_raw().hex().upper()
        self.address = derive_classic_address(self.public)

    def sign(self, fields: dict[str, Any]) -> str:
        """The signed blob in hex."""
        whole = {**fields, "SigningPubKey": self.public}
        signature = self._key.sign(bytes.fromhex(encode_for_signing(whole)))
        return encode({**whole, "TxnSignature": signature.hex().upper()})

    def multisign(self, fields: dict[str, Any]) -> dict[str, str]:
        """This key's share of a multi-signed transaction, as a member of its Signers."""
        signature = self._key.sign(bytes.fromhex(encode_for_multisigning(fields, self.address)))
        return {"Account": self.address, "SigningPubKey": self.public, "TxnSignature": signature.hex().upper()}

    def send(self, engine: Engine, **fields: Any) -> str:
        """Sign and submit a transaction with the account's next free sequence; returns its hash."""
        waiting = [each.tx["Sequence"] for each in engine.queue if each.tx["Account"] == self.address]
        sequence = max([engine.state.accounts[self.address].sequence, *(each + 1 for each in waiting)])
        whole = {"Account": self.address, "Sequence": sequence, "Fee": "5000", "Flags": 0, **fields}
        whole.setdefault("LastLedgerSequence", engine.number + 100)
        code, found = engine.submit(self.sign(whole))
        assert found is not None, code
        return found.id

    def pay(self, engine: Engine, to: str, amount: Any, tag: int | None = None, **more: Any) -> str:
        """A payment; returns its hash."""
        fields = {"TransactionType": "Payment", "Destination": to, "Amount": amount, **more}
        return self.send(engine, **fields, **({} if tag is None else {"DestinationTag": tag}))

    def overtaking(self, blob: str) -> str:
        """A transaction of its own on the very slot of another blob, as whoever has stolen the key would send it."""
        theirs = decode(blob)
        kept = ("Account", "Sequence", "TicketSequence", "LastLedgerSequence", "NetworkID")
        fields = {name: theirs[name] for name in kept if name in theirs}
        return self.sign({**fields, "TransactionType": "AccountSet", "Fee": "5000", "Flags": 0})
