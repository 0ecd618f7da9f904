from tests.client.town import build, exported, parsed, verified
from tests.world import World


async def test_honest(world: World) -> None:
    town = await build(world)
    lines = await exported(town.context)
    import collections
    print(collections.Counter(l["kind"] for l in parsed(lines)))
    from pathlib import Path; Path("/tmp/export.ndjson").write_bytes(b"".join(lines))
    report = verified(parsed(lines))
    print(report)
    assert report.good
