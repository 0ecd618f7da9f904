"""The counters that API processes share."""

from __future__ import annotations

from settlement.api.traffic import Traffic


def test_each_process_counts_and_every_one_says_the_sum() -> None:
    first, second, _ = Traffic.of_processes(3)
    first.count("GET", 200)
    second.count("GET", 204)
    second.count("POST", 503)
    second.count("BREW", 418)
    expected = [("GET", "2xx", 2), ("POST", "5xx", 1), ("other", "4xx", 1)]
    assert list(first.answered()) == list(second.answered()) == expected
    assert list(Traffic().answered()) == []
