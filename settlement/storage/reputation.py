"""Figures of providers' conduct: what windows and disputes have settled about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from settlement.storage.database import Connection

_ADD = text("""
INSERT INTO provider_figures (provider_no, window_no, records, refused, flagged)
SELECT r.provider_no, :window, sum(r.accepted), sum(jsonb_array_length(r.refusals)), coalesce(max(f.flagged), 0)
FROM usage_report r JOIN party p ON p.no = r.provider_no
LEFT JOIN unnest(CAST(:providers AS text[]), CAST(:flagged AS bigint[])) AS f(provider, flagged) ON f.provider = p.id
WHERE r.window_no = :window GROUP BY r.provider_no
""")

_WINDOWS = text("""
SELECT min(f.window_no) AS first_window, max(f.window_no) AS last_window,
       coalesce(sum(f.records), 0)::bigint AS records, coalesce(sum(f.refused), 0)::bigint AS refused,
       coalesce(sum(f.flagged), 0)::bigint AS flagged, coalesce(sum(o.posted), 0)::bigint AS charged
FROM provider_figures f LEFT JOIN (
    SELECT window_no, sum(posted) AS posted FROM obligation WHERE provider_no = :provider GROUP BY window_no
) o ON o.window_no = f.window_no
WHERE f.provider_no = :provider
""")

_DISPUTES = text("""
SELECT count(*) FILTER (WHERE state = 'upheld') AS upheld, count(*) FILTER (WHERE state = 'rejected') AS rejected,
       count(*) FILTER (WHERE state = 'withdrawn') AS withdrawn,
       count(*) FILTER (WHERE cause = 'no_answer') AS unanswered,
       coalesce(sum(award), 0)::bigint AS awarded, coalesce(sum(penalty), 0)::bigint AS penalties,
       coalesce(sum(award + penalty - paid - penalty_paid), 0)::bigint AS owed, count(seconds) AS answers,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY seconds) AS answer_median, max(seconds) AS answer_longest
FROM (SELECT *, floor(extract(epoch FROM answered_at - opened_at))::bigint AS seconds FROM dispute) d
WHERE provider_no = :provider AND ended_at IS NOT NULL
""")


@dataclass(frozen=True, slots=True)
class Figures:
    """A provider in numbers. Windows are those that have their checkpoint, disputes those that have ended.

    Amounts are microCU, `answer_median` and `answer_longest` whole seconds, None when nothing was answered.
    """

    first_window: int | None
    last_window: int | None
    records: int
    refused: int
    flagged: int
    charged: int
    upheld: int
    rejected: int
    withdrawn: int
    unanswered: int
    awarded: int
    penalties: int
    owed: int
    answers: int
    answer_median: int | None
    answer_longest: int | None


async def add(connection: Connection, window_no: int, flagged: Mapping[str, int]) -> None:
    """Write the figures of a window; `flagged` are charged records with flags, by provider id."""
    values = {"window": window_no, "providers": list(flagged), "flagged": list(flagged.values())}
    await connection.execute(_ADD, values)


async def of_provider(connection: Connection, provider_no: int) -> Figures:
    """All that is settled about a provider."""
    found: dict[str, Any] = {}
    for query in (_WINDOWS, _DISPUTES):
        found |= (await connection.execute(query, {"provider": provider_no})).mappings().one()
    return Figures(**found)
