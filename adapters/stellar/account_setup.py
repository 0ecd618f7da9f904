"""What a treasury on Stellar should be: its own account, its channel accounts, and the issuer of the CU asset, if any.

A memo must be asked for, so that wallets don't send money that names nobody. A channel account lends its sequence and
nothing else: one transaction makes it, on the treasury's reserve, and in it the account's own key signs for the only
time, hands over to the treasury's signer and loses its weight. An issuer's flags come before the first line, since
clawback is only for lines that are made later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from stellar_sdk import (
    BeginSponsoringFutureReserves,
    ChangeTrust,
    CreateAccount,
    EndSponsoringFutureReserves,
    Keypair,
    ManageData,
    SetOptions,
    SetTrustLineFlags,
    xdr,
)
from stellar_sdk import Signer as SdkSigner
from stellar_sdk.operation import Operation
from stellar_sdk.operation.set_options import AuthorizationFlag
from stellar_sdk.operation.set_trust_line_flags import TrustLineFlags

from adapters.stellar.assets import XLM, account_key, data_key, line_key, sdk_asset
from adapters.stellar.preflight import AUTHORIZED, MEMO_REQUIRED, State
from settlement.chain import Asset, SetupStep, Signer, Unpayable, Unreachable

REQUIRED, REVOCABLE, IMMUTABLE, CLAWBACK = 1, 2, 4, 8
"""Flags of an account, as far as it issues anything."""

CU = "CU"
"""The code of an asset of our own."""

_DERIVATION = "compute-settlement channel account"


@dataclass(frozen=True, slots=True)
class Issuing:
    """The optional asset of our own: whose key issues it, and whether its issuer may claw it back.

    The treasury gives it out. It is owed and nothing that the books hold, so it is no asset of theirs.
    """

    signer: Signer = field(repr=False)
    issuer: str
    clawback: bool

    @property
    def asset(self) -> Asset:
        return Asset(CU, self.issuer)

    @property
    def flags(self) -> int:
        """Whoever holds it must be approved, and can lose the approval; clawback by policy."""
        return REQUIRED | REVOCABLE | (CLAWBACK if self.clawback else 0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be brought about. `own_key` is the account whose key signs for the treasury; `channels` are ours by
    their keys, `foreign` those that an operator has made; `home` is the domain that the accounts name."""

    treasury: str
    own_key: str
    assets: tuple[Asset, ...]
    channels: Mapping[str, Keypair]
    foreign: tuple[str, ...]
    home: str
    issuing: Issuing | None


@dataclass(frozen=True, slots=True)
class Making:
    """The operations of a step, who signs beside the treasury's signer, and how many reserves they lock."""

    operations: tuple[Operation, ...]
    others: tuple[Signer | Keypair, ...] = ()
    locks: int = 0


async def channel_keys(signer: Signer, network: str, treasury: str, count: int) -> dict[str, Keypair]:
    """The keys of as many channel accounts as are wanted, by address: nothing has to be kept to find them again.

    Each comes from a signature by the treasury's signer, which is the same whenever it is asked for (RFC 8032). Raises
    Unreachable, also when the signer gives two signatures for one text.
    """
    found: dict[str, Keypair] = {}
    for number in range(count):
        text = f"{_DERIVATION}\nnetwork: {network}\ntreasury: {treasury}\nnumber: {number}".encode()
        signature = await signer.sign(text)
        if not number and await signer.sign(text) != signature:
            raise Unreachable("the signer's signatures differ from call to call: list channel accounts by hand")
        key = Keypair.from_raw_ed25519_seed(sha256(signature).digest())
        found[key.public_key] = key
    return found


def keys_for(wanted: Wanted) -> list[xdr.LedgerKey]:
    """Every ledger entry that `steps` looks at."""
    accounts = [wanted.treasury, *wanted.channels, *wanted.foreign]
    if wanted.issuing:
        accounts.append(wanted.issuing.issuer)
    keys = [account_key(each) for each in dict.fromkeys(accounts)]
    keys += [line_key(wanted.treasury, asset) for asset in _lines(wanted)]
    return [*keys, data_key(wanted.treasury, MEMO_REQUIRED)]


def steps(state: State, wanted: Wanted) -> tuple[SetupStep, ...]:
    """What is there and what isn't, in the order in which it comes about."""
    root = state.account(wanted.treasury)
    if root is None:
        why = "send it XLM: 1 for the account, 0.5 for each line and the data entry, 1.5 for each channel, and fees"
        return (SetupStep("funded", f"{wanted.treasury} is an account", False, False, why),)
    found = [
        SetupStep("funded", f"{wanted.treasury} is an account", True),
        _signer(root, wanted),
        SetupStep("no_flags", "the treasury issues nothing: no flags", not root.flags.uint32, not _fixed(root)),
        SetupStep("memo_required", "wallets are to ask for a memo (SEP-29)", state.wants_memo(wanted.treasury)),
    ]
    if wanted.home:
        found.append(SetupStep("home_domain", f"its home is {wanted.home} (SEP-1)", _home(root) == wanted.home))
    ready = True
    if wanted.issuing:
        issuing = _issuer_steps(state, wanted, wanted.issuing)
        ready = all(each.done for each in issuing)
        found += issuing
    for asset in _lines(wanted):
        found += _line_steps(state, wanted, asset, ready)
    for address in (*wanted.channels, *wanted.foreign):
        found.append(_channel(state, wanted, address))
    return tuple(found)


def making(step: str, state: State, wanted: Wanted) -> Making:
    """The operations that bring a step about. Raises Unpayable ``step_unknown``."""
    treasury, issuing = wanted.treasury, wanted.issuing
    name, _, what = step.partition(":")
    asset = Asset.parse(what)
    if step == "no_flags":
        root = state.account(treasury)
        set_now = 0 if root is None else root.flags.uint32
        return Making((SetOptions(clear_flags=AuthorizationFlag(set_now), source=treasury),))
    if step == "memo_required":
        return Making((ManageData(MEMO_REQUIRED, b"1", source=treasury),), locks=1)
    if step == "home_domain" and wanted.home:
        return Making((SetOptions(home_domain=wanted.home, source=treasury),))
    if name == "line" and asset in _lines(wanted):
        return Making((ChangeTrust(sdk_asset(asset), source=treasury),), locks=1)
    if name == "channel" and what in wanted.channels:
        return _new_channel(wanted, what)
    if issuing is not None:
        by_issuer = (issuing.signer,)
        if name == "authorized" and asset == issuing.asset:
            allow = SetTrustLineFlags(
                treasury, sdk_asset(asset), set_flags=TrustLineFlags.AUTHORIZED_FLAG, source=issuing.issuer
            )
            return Making((allow,), others=by_issuer)
        if step == "issuer:flags":
            return Making((_flags(state, issuing),), others=by_issuer)
        if step == "issuer:home_domain" and wanted.home:
            return Making((SetOptions(home_domain=wanted.home, source=issuing.issuer),), others=by_issuer)
    raise Unpayable("step_unknown", step[:80])


def _lines(wanted: Wanted) -> tuple[Asset, ...]:
    """What the treasury needs a line for: the assets of the books, and the one that it only gives out."""
    held = tuple(each for each in wanted.assets if each != XLM and each.issuer != wanted.treasury)
    return (*held, wanted.issuing.asset) if wanted.issuing else held


def _signer(root: xdr.AccountEntry, wanted: Wanted) -> SetupStep:
    """The service's key should be an added one, which can be taken away when it is stolen; the master's can't."""
    weight = _weights(root).get(wanted.own_key, 0)
    done = wanted.own_key != wanted.treasury and weight >= max(root.thresholds.thresholds[2], 1)
    why = (
        f"add {wanted.own_key} as a signer whose weight reaches the medium threshold and not the high one, and keep "
        "the master key and those of recovery apart"
    )
    return SetupStep("signer", "the service signs by an added key, which pays and changes no signers", done, False, why)


def _issuer_steps(state: State, wanted: Wanted, issuing: Issuing) -> list[SetupStep]:
    root = state.account(issuing.issuer)
    if root is None:
        why = "send it 1 XLM: it makes no payments and pays no fees"
        return [SetupStep("issuer:funded", f"{issuing.issuer} is an account", False, False, why)]
    title = "holders need approval and can lose it, " + (
        "and the issuer can claw back" if issuing.clawback else "and the issuer can't claw back"
    )
    fixed = _fixed(root)
    why = "its flags were made immutable: issue from another account" if fixed else ""
    found = [
        SetupStep("issuer:funded", f"{issuing.issuer} is an account", True),
        SetupStep("issuer:flags", title, root.flags.uint32 & ~IMMUTABLE == issuing.flags, not fixed, why),
    ]
    if wanted.home:
        found.append(SetupStep("issuer:home_domain", f"its home is {wanted.home}", _home(root) == wanted.home))
    return found


def _flags(state: State, issuing: Issuing) -> SetOptions:
    root = state.account(issuing.issuer)
    now = 0 if root is None else root.flags.uint32
    missing, surplus = issuing.flags & ~now, now & ~issuing.flags
    return SetOptions(
        set_flags=AuthorizationFlag(missing) if missing else None,
        clear_flags=AuthorizationFlag(surplus) if surplus else None,
        source=issuing.issuer,
    )


def _line_steps(state: State, wanted: Wanted, asset: Asset, ready: bool) -> list[SetupStep]:
    line = state.line(wanted.treasury, asset)
    ours = wanted.issuing is not None and asset == wanted.issuing.asset
    may = ready or not ours
    found = [
        SetupStep(
            f"line:{asset.text}",
            f"it can hold {asset.text}",
            line is not None,
            may,
            "" if may else "after the issuer's flags, which lines made before don't follow",
        )
    ]
    if line is not None and (ours or not line.flags.uint32 & AUTHORIZED):
        done = bool(line.flags.uint32 & AUTHORIZED)
        why = "" if ours else "the issuer must approve the treasury"
        found.append(SetupStep(f"authorized:{asset.text}", f"the issuer lets it hold {asset.text}", done, ours, why))
    return found


def _channel(state: State, wanted: Wanted, address: str) -> SetupStep:
    root = state.account(address)
    weights = {} if root is None else {key: weight for key, weight in _weights(root).items() if weight}
    done = root is not None and weights.keys() == {wanted.own_key}
    ours = address in wanted.channels
    why = ""
    if root is not None and not done:
        why = f"others sign for it too: {', '.join(sorted(weights.keys() - {wanted.own_key})) or 'nobody else'}"
    elif not ours:
        why = "it is not of the service's making: make it, with the service's key as its only signer"
    return SetupStep(f"channel:{address}", "only the service signs on its sequence", done, ours and root is None, why)


def _new_channel(wanted: Wanted, address: str) -> Making:
    operations = (
        BeginSponsoringFutureReserves(address, source=wanted.treasury),
        CreateAccount(address, "0", source=wanted.treasury),
        SetOptions(master_weight=0, signer=SdkSigner.ed25519_public_key(wanted.own_key, 1), source=address),
        EndSponsoringFutureReserves(source=address),
    )
    return Making(operations, others=(wanted.channels[address],), locks=3)


def _weights(root: xdr.AccountEntry) -> dict[str, int]:
    """Who signs for an account, by their addresses, with their weights; keys of other kinds by their text."""
    own = root.account_id.account_id.ed25519
    assert own is not None, "an account is a key"
    found = {_address(own.uint256): root.thresholds.thresholds[0]}
    for each in root.signers:
        raw = each.key.ed25519
        found[str(each.key.to_xdr()) if raw is None else _address(raw.uint256)] = each.weight.uint32
    return found


def _address(raw: bytes) -> str:
    return Keypair.from_raw_ed25519_public_key(raw).public_key


def _home(root: xdr.AccountEntry) -> str:
    return root.home_domain.string32.decode("ascii", "replace")


def _fixed(root: xdr.AccountEntry) -> bool:
    return bool(root.flags.uint32 & IMMUTABLE)
