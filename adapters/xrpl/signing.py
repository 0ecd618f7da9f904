"""Who signs for the treasury: one key, or as many of several as its signer list asks for, and not one more.

A signature beyond the quorum could be taken out by whoever sees the transaction, and its hash would be another one
(CHAINS 1.2). So the heaviest keys sign until the quorum is reached, and none of them could be left out. When the keeper
of one gives no answer, the others are asked instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from xrpl.core.addresscodec import decode_classic_address
from xrpl.core.binarycodec import encode, encode_for_multisigning

from adapters.xrpl.rpc import Account, SignerList
from adapters.xrpl.transactions import address_of, check_bounded, half_sha512, public_key_text, signed
from settlement.chain import Signer, Unpayable, Unreachable

MASTER_OFF = 0x00100000


class Keys:
    """The keys that the service signs with for one account; several sign together by its signer list."""

    def __init__(self, signers: Sequence[Signer]) -> None:
        """Raises ValueError for no signer, and for one that comes twice."""
        self._signers = {address_of(signer): signer for signer in signers}
        if not signers or len(self._signers) < len(signers):
            raise ValueError("one key signs, or several different ones")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The accounts that the keys are the master keys of: what a regular key or a signer list names."""
        return tuple(self._signers)

    @property
    def several(self) -> bool:
        """Whether the account's signer list decides which of them sign."""
        return len(self._signers) > 1

    def check(self, address: str, root: Account, listed: SignerList | None) -> None:
        """Raises Unpayable ``key_not_authorized`` unless the keys may sign for the account as it is."""
        if self.several:
            self._panel(listed, ())
            return
        (own,) = self.addresses
        if own != root.regular_key and (own != address or root.flags & MASTER_OFF):
            raise Unpayable("key_not_authorized", f"{own} is neither the regular key of {address} nor a master key on")

    def count(self, listed: SignerList | None) -> int:
        """How many signatures a transaction will carry in its list of signers: none when one key signs alone."""
        return len(self._panel(listed, ())) if self.several else 0

    async def sign(self, build: Callable[[int], Mapping[str, Any]], listed: SignerList | None) -> tuple[bytes, int]:
        """The signed blob of what `build` makes for a number of signatures, which its fee depends on; and that number.

        Raises Unpayable ``key_not_authorized`` when the keys don't make a quorum, Unreachable when too many keepers
        give no answer.
        """
        if not self.several:
            (signer,) = self._signers.values()
            return await signed(build(0), signer), 0
        silent: dict[str, Unreachable] = {}
        while True:
            panel = self._panel(listed, silent)
            whole = {**build(len(panel)), "SigningPubKey": ""}
            check_bounded(whole)
            shares = []
            for address in sorted(panel, key=decode_classic_address):
                try:
                    shares.append(await self._share(whole, address))
                except Unreachable as why:
                    silent[address] = why
                    break
            else:
                return bytes.fromhex(encode({**whole, "Signers": shares})), len(shares)

    def _panel(self, listed: SignerList | None, silent: Collection[str]) -> tuple[str, ...]:
        """Keys that reach the quorum, heaviest first, so that no one of them could be left out."""
        if listed is None:
            raise Unpayable("key_not_authorized", "several keys are to sign, and the account has no signer list")
        weights = {each: listed.weights[each] for each in self._signers if each in listed.weights}
        panel, reached = [], 0
        for address in sorted(weights.keys() - set(silent), key=lambda each: (-weights[each], each)):
            if reached < listed.quorum:
                panel.append(address)
                reached += weights[address]
        if reached >= listed.quorum:
            return tuple(panel)
        if sum(weights.values()) >= listed.quorum:
            raise Unreachable(f"the keepers of {len(silent)} keys give no answer, {reached} of {listed.quorum} is left")
        raise Unpayable("key_not_authorized", f"the keys weigh {reached} of a quorum of {listed.quorum}")

    async def _share(self, whole: Mapping[str, Any], address: str) -> dict[str, dict[str, str]]:
        signer = self._signers[address]
        message = bytes.fromhex(encode_for_multisigning(dict(whole), address))
        signature = await signer.sign(message if signer.algorithm == "ed25519" else half_sha512(message))
        share = {"Account": address, "SigningPubKey": public_key_text(signer), "TxnSignature": signature.hex().upper()}
        return {"Signer": share}
