from tests.client.town import build, exported, parsed, verified
from tests.world import World
from settlement.services.verification import verify
from settlement.storage import invariants
async def test_honest(world: World) -> None:
    town = await build(world)
    async with town.context.database.read() as c:
        print(await invariants.missing_guard(c))
    async with town.context.database.read() as c:
        for inv in invariants.invariants():
            rows=(await c.exec_driver_sql(inv.query)).all()
            if rows: print(inv.number, inv.name, rows)
    r = await verify(town.context)
    print(r)
    assert r.good
