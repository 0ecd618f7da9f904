"""The seed registry against the unit registry that its names come from."""

from __future__ import annotations

from genai_prices.data_units import unit_data

from governance.ratebook.meters import CSV_FIELDS, CSV_LONG_FIELDS, METERS, PRICE_KEYS


def inside(name: str, whole: str) -> bool:
    return set(unit_data[whole]["dimensions"].items()) < set(unit_data[name]["dimensions"].items())


def test_every_meter_lies_in_its_parent_there_too() -> None:
    for name, (parent, _) in METERS.items():
        assert name in unit_data
        assert parent is None or inside(name, parent)


def test_a_meter_without_parent_lies_in_no_other_meter() -> None:
    for name, (parent, _) in METERS.items():
        if parent is None:
            assert not [other for other in METERS if inside(name, other)]


def test_siblings_of_the_same_kind_never_have_a_meter_in_common_but_cached_modalities() -> None:
    """The choice of a strict tree: only the cached audio, image and video tokens had two possible parents."""
    ambiguous = {
        name
        for name, (parent, _) in METERS.items()
        if any(inside(name, other) and other != parent and not inside(str(parent), other) for other in METERS)
    }
    assert ambiguous == {"cache_audio_read_tokens", "cache_image_read_tokens", "cache_video_read_tokens"}


def test_price_keys_mean_what_they_mean_there() -> None:
    for key, (name, per) in PRICE_KEYS.items():
        assert (unit_data[name]["price_key"], unit_data[name]["per"]) == (key, per)
    assert {name for name, _ in PRICE_KEYS.values()} == set(METERS)
    assert set(CSV_FIELDS.values()) | set(CSV_LONG_FIELDS.values()) <= set(METERS)
