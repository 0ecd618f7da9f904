"""The second verifier on books whose rows have left and whose salts were erased: the same verdicts as the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from settlement.client.verifier import verify_export
from settlement.services import retention
from tests.client.town import Town, exported, parsed
from tests.independent.test_independent import judged_lines, need_node
from tests.services.test_retention import old_town

pytest.importorskip("pyarrow", reason="NOT RUN: without pyarrow (the extra archive) nothing was proved about retention")
pytestmark = pytest.mark.database
__all__ = ["need_node"]


async def test_both_verifiers_agree_on_what_has_left_and_what_was_erased(town: Town, tmp_path: Path) -> None:
    context = await old_town(town, tmp_path)
    await retention.erase(context, town.buyer.id, "asked")
    await retention.run(context)
    lines = parsed(await exported(context))
    code, verdict = judged_lines(lines, tmp_path / "export.ndjson")
    assert code == 0, verdict
    assert verdict["counts"]["retention"] == 3
    place = next(at for at, line in enumerate(lines) if line["kind"] == "record_salt" and line["hashes"])
    left = next(at for at, line in enumerate(lines) if line["kind"] == "retention")
    erased = next(at for at, line in enumerate(lines) if line["kind"] == "erasure")
    hashes = lines[place]["hashes"]
    for at, change in (
        (place, {"hashes": "00" * 32 + hashes[64:]}),
        (place, {"hashes": hashes[64:]}),
        (place, {"hashes": hashes + "00" * 32}),
        (place, {"key": "00" * 32}),
        (left, {"records": lines[left]["records"] + 1}),
        (erased, {"consumer": town.own.id}),
    ):
        changed = [*lines[:at], {**lines[at], **change}, *lines[at + 1 :]]
        code, verdict = judged_lines(changed, tmp_path / "export.ndjson")
        fault = verify_export((tmp_path / "export.ndjson").read_bytes().splitlines()).fault
        assert fault is not None
        assert (code, verdict["code"]) == (2, fault.code), (change, verdict, fault)
