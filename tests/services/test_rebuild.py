"""Derived tables are made anew from evidence, with the same roots; evidence that does not hold changes nothing."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.engine import make_url

from settlement.core.errors import Broken
from settlement.services import rebuild
from settlement.services.verification import verify
from tests.client.town import Town, settle, trade
from tests.world import World

pytestmark = pytest.mark.database


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def damage(url: str, statement: str) -> None:
    """As the owner, past every guard."""
    with psycopg.connect(plain(url)) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(statement.encode())


def state(url: str) -> list[object]:
    with psycopg.connect(plain(url)) as connection:
        return [
            connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3".encode()).fetchall()
            for name in (
                "account",
                "obligation",
                "provider_stream",
                "tree_tile",
                "tree_mark",
                "hold",
                "budget_use",
                "provider_figures",
            )
        ]


DAMAGES = {
    "balances": """
        UPDATE account SET settled = settled + 7, held = held + CASE WHEN held > 0 THEN 1 ELSE 0 END
        WHERE kind IN ('consumer', 'provider')""",
    "obligations": "DELETE FROM obligation WHERE window_no = 1",
    "streams": "UPDATE provider_stream SET seq = 1, digest = NULL",
    "holds": "UPDATE hold SET uses = 0, captured = 0, released = amount, late = 0 WHERE state = 'captured'",
    "budgets": "INSERT INTO budget_use (budget_no, period, used) VALUES (1, '2026-11', 5)",
    "marks": "INSERT INTO tree_mark (window_no, journal_seq, leaves) VALUES (1, 5, 3)",
    "figures": "DELETE FROM provider_figures",
    "tiles": "UPDATE tree_tile SET hashes = set_byte(hashes, 0, 255 - get_byte(hashes, 0))",
}


async def test_whatever_is_derived_comes_back_as_it_was(world: World, database_url: str, town: Town) -> None:
    sound = state(database_url)
    assert (await rebuild.run(world.context)).changed == 0
    assert state(database_url) == sound
    for name, statement in DAMAGES.items():
        damage(database_url, statement)
        assert state(database_url) != sound, name
        assert not (await verify(world.context, "books")).good or name == "figures"
        found = await rebuild.run(world.context)
        assert {each for each in DAMAGES if getattr(found, each)} == {name}
        assert state(database_url) == sound, name
    for statement in DAMAGES.values():
        damage(database_url, statement)
    await rebuild.run(world.context)
    assert state(database_url) == sound
    assert (await verify(world.context)).good
    await trade(town, 8)
    await settle(world)
    assert (await verify(world.context)).good


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE usage_report SET total = total + 1 WHERE no = 1", "report_total"),
        ("UPDATE journal_entry SET payload = payload || ' ' WHERE seq = 7", "journal_hash"),
        ("UPDATE record_salt SET key = sha256(key) WHERE window_no = 1", "checkpoint_records"),
        ("DELETE FROM journal_entry WHERE seq = 1", "journal_gap"),
    ],
)
async def test_evidence_that_does_not_hold_changes_nothing(
    world: World, database_url: str, statement: str, code: str, town: Town
) -> None:
    damage(database_url, DAMAGES["balances"])
    damage(database_url, statement)
    before = state(database_url)
    with pytest.raises(Broken) as refused:
        await rebuild.run(world.context)
    assert refused.value.code == code
    assert state(database_url) == before
