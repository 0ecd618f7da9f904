"""The settings of the XRP Ledger adapter: what is taken, and what is refused with the setting's name and no value."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.xrpl import XrplAdapter, open_adapter
from adapters.xrpl.account_setup import Wanted
from adapters.xrpl.rpc import SignerList
from settlement.chain import Asset, Signer
from tests.rippled.peer import ISSUER, STABLE, signer
from tests.rippled.wallets import Wallet
from tests.world import SeededSources

ONE, TWO, TREASURY = (Wallet(name).address for name in ("one", "two", "treasury"))


def opened(**config: Any) -> XrplAdapter:
    """An adapter whose signer URIs are names of wallets."""

    def open_signer(uri: str) -> Signer:
        return signer(uri)

    given = {"rpc_url": "http://one.example,http://two.example", "network_id": "1", "signer": "treasury", **config}
    sources = SeededSources()
    return open_adapter(given, clock=sources.clock, entropy=sources.entropy, open_signer=open_signer)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SETTLEMENT_XRPL_SIGNER", raising=False)


def test_what_is_left_out_has_a_sound_default() -> None:
    adapter = opened()
    settings = adapter._settings
    assert (adapter.treasury, settings.agreement, settings.expiry, settings.fee_cap) == (TREASURY, 2, 12, 5_000)
    assert settings.wanted == Wanted()
    assert opened(assets=STABLE.text)._settings.assets == {STABLE: 6}


def test_what_the_account_should_be() -> None:
    adapter = opened(regular_key=ONE, signer_list=f"2:{ONE},{TWO}=2", tickets="40", cu_token="yes")
    assert adapter._settings.wanted == Wanted(ONE, SignerList(2, {ONE: 1, TWO: 2}), 40, True)


def test_several_signers_sign_for_a_treasury_that_is_named() -> None:
    adapter = opened(signer="one two", treasury=TREASURY)
    assert adapter._keys.addresses == (ONE, TWO)
    with pytest.raises(ValueError, match="SETTLEMENT_XRPL_TREASURY"):
        opened(signer="one two")
    with pytest.raises(ValueError, match="SETTLEMENT_XRPL_SIGNER"):
        opened(signer="one one", treasury=TREASURY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tickets", "yes"),
        ("tickets", "201"),
        ("tickets", "-1"),
        ("cu_token", "maybe"),
        ("regular_key", TREASURY),
        ("regular_key", "rNobody"),
        ("signer_list", ONE),
        ("signer_list", f"3:{ONE},{TWO}"),
        ("signer_list", f"0:{ONE}"),
        ("signer_list", f"1:{ONE},{ONE}"),
        ("signer_list", f"1:{ONE},{TREASURY}"),
        ("signer_list", f"1:{ONE}=65536"),
        ("signer_list", f"1:{ONE}=0"),
        ("signer_list", "1:"),
        ("expiry_ledgers", "7"),
        ("agreement", "3"),
        ("treasury", "X7gJ5YK8abHf2eTPWPFHAAot8Knck11QGqmQ7a6a3Z8PJvk"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"SETTLEMENT_XRPL_{name.upper()}") as refused:
        opened(**{name: value})
    assert value == "yes" or value not in str(refused.value)


def test_an_asset_that_the_treasury_issues_is_no_asset() -> None:
    from xrpl.core.addresscodec import decode_classic_address

    own = f"0000000A{decode_classic_address(TREASURY).hex().upper()}"
    for text in (f"CU:{own}", f"CUX:{TREASURY}"):
        with pytest.raises(ValueError, match="issues itself"):
            opened(assets=text)
    other = f"0000000A{decode_classic_address(ISSUER.address).hex().upper()}"
    assert Asset("CU", other) in opened(assets=f"CU:{other}").facts.assets
