import json
from tests.client.town import build, exported, parsed, verified
from tests.world import World
from settlement.services.verification import verify
from settlement.services import statements, proofs, audit
from settlement.client.verifier import recompute_statement, check_proof
from settlement.storage import invariants
from pathlib import Path
async def test_honest(world: World) -> None:
    town = await build(world)
    docs={}
    for m in (town.own, town.buyer, town.linked, town.plain):
        for w in (1,2):
            d = await statements.statement(town.context, m.id, w)
            d = json.loads(json.dumps(d, default=lambda o: print("DEC", o, [k for k in d if "Decimal" in repr(d[k])]) or str(o)))
            r = recompute_statement(d, trusted_key=town.context.key.public.jwk())
            print(m.party.name, w, r, len(d["records"]), d["opening"], d["closing"], d["position"] and d["position"]["net"])
            docs[m.party.name+str(w)]=d
    Path("/tmp/st.json").write_text(json.dumps(docs))
    print(statements.as_csv(docs["buyer1"])[:400])
    r = await verify(town.context)
    print(r)
    assert r.good
    p = await proofs.record_proof(town.context, town.plain.id, [x for x in docs["plain2"]["records"]][0]["record"]["id"])
    print(check_proof(p, rate_table=docs["plain2"]["rate_tables"][0]["document"].encode()))
    print(check_proof(await proofs.liability_proof(town.context, 2, town.plain.id)).fault)
