"""An ordinary wallet on the simulated network, for tests and for the demo's consumers and providers."""

from __future__ import annotations

import re
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

from adapters.simulated.blobs import Key, Payment
from adapters.simulated.network import Network
from settlement.chain import Asset

URI_SCHEME = "simulated"
DECIMALS = 6


class Wallet:
    """A key and the network that it pays on. Its payments are signed transactions like everybody's."""

    def __init__(self, network: Network, seed: bytes) -> None:
        """`seed` is 32 bytes. The account exists once somebody has paid it SIM; see `create`."""
        self._network = network
        self.key = Key(seed)

    @classmethod
    def create(cls, network: Network, seed: bytes, *, sim: int = 100_000_000, usd: int = 0) -> Wallet:
        """A wallet whose account the faucet has funded, in millionths of SIM and USD."""
        wallet = cls(network, seed)
        network.create_account(wallet.address, sim=sim, usd=usd)
        return wallet

    @property
    def address(self) -> str:
        return self.key.address

    def balance(self, asset: Asset) -> int:
        """What it holds at the last closed ledger, in smallest units."""
        return self._network.balance(self.address, asset)

    def pay(
        self, to: str, asset: Asset, amount: int, reference: int | None = None, *, partial: int | None = None
    ) -> str:
        """Pay `amount` smallest units; returns the transaction's id. Final once a ledger has closed on it.

        `partial` is a partial payment: the transaction says `amount`, but only `partial` is sent and arrives.
        Raises PaymentRefused when the node says no at once.
        """
        return self._network.pay(self.key, (Payment(to, asset.text, amount, reference, partial),))

    def prove(self, text: str) -> tuple[str, str]:
        """Public key and signature that prove, with `text`, whose address this is (`ChainAdapter.proves_address`)."""
        return self.key.public.hex(), self.key.signed_text(text)

    def pay_uri(self, uri: str, amount: int | None = None) -> str:
        """Pay what a payment URI asks for; `amount` in smallest units when it names none (or to overrule it)."""
        to, asset, asked, reference = parsed_uri(uri)
        if amount is None:
            amount = asked
        if amount is None:
            raise ValueError("neither the URI nor the caller says how much")
        return self.pay(to, asset, amount, reference)


def payment_uri(to: str, asset: Asset, reference: int, amount: int | None) -> str:
    """``simulated:<address>?asset=...&reference=...&amount=...``; the amount as a decimal of the asset's unit."""
    whole, fraction = divmod(amount or 0, 10**DECIMALS)
    text = "" if amount is None else f"&amount={whole}.{fraction:0{DECIMALS}d}"
    return f"{URI_SCHEME}:{to}?asset={asset.text}&reference={reference}{text}"


def parsed_uri(uri: str) -> tuple[str, Asset, int | None, int | None]:
    """Address, asset, amount in smallest units and reference of a payment URI. Raises ValueError."""
    parts = urlsplit(uri)
    fields = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
    if parts.scheme != URI_SCHEME or "asset" not in fields:
        raise ValueError(f"not a payment URI of a simulated network: {uri!r}")
    amount = None
    if "amount" in fields:
        if not re.fullmatch(rf"\d{{1,13}}(\.\d{{1,{DECIMALS}}})?", fields["amount"], re.ASCII):
            raise ValueError(f"not an amount with at most {DECIMALS} decimals: {fields['amount'][:40]!r}")
        amount = int(Decimal(fields["amount"]).scaleb(DECIMALS))
    reference = int(fields["reference"]) if "reference" in fields else None
    return parts.path, Asset.parse(fields["asset"]), amount, reference
