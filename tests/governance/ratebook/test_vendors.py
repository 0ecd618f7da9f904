"""Who counts when a rate is made."""

from __future__ import annotations

import pytest

from governance.ratebook import vendors
from governance.ratebook.catalogue import read_prices


@pytest.mark.parametrize(
    ("vendor", "rank"),
    [
        ("openai", 0),
        ("aws", 0),
        ("openrouter", None),
        ("huggingface_novita", None),
        ("nobody-knows", 1),
        ("OpenAI", 1),
    ],
)
def test_hosts_before_the_unknown_and_never_resellers(vendor: str, rank: int | None) -> None:
    assert vendors.rank(vendor) == rank


def test_no_vendor_is_both() -> None:
    assert not vendors.HOSTS & vendors.RESELLERS
    assert vendors.HOSTS.issuperset(vendors.NAMES.values())
    assert not vendors.NAMES.keys() & (vendors.HOSTS | vendors.RESELLERS), "nobody has two names"
    assert not any(host.startswith(vendors.RESELLER_PREFIX) for host in vendors.HOSTS)


def test_most_of_the_installed_catalogue_is_classified() -> None:
    """A vendor that nobody classified is rare, or the list is out of date."""
    found = {listing.vendor for listing in read_prices().listings}
    unknown = sorted(vendor for vendor in found if vendors.rank(vendor) == 1)
    assert len(unknown) * 10 < len(found), unknown
