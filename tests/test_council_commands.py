"""The ceremony of guides/council.md, command by command: members sign files, the operator founds, a member proposes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from governance import council, service
from settlement import cli
from settlement.bootstrap import open_installation
from settlement.commands import council as commands
from settlement.config import Settings
from settlement.core import canonical, times
from settlement.core.signatures import SigningKey
from tests.governance.chamber import changed_document, first_council
from tests.governance.tables import following
from tests.world import START

pytestmark = pytest.mark.database
MEMBERS = ("ada", "bo", "cy")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What a command answers with --json; it must succeed."""
    code = cli.run([*arguments, "--json"])
    streams = capsys.readouterr()
    assert code == 0, streams.err
    found: dict[str, Any] = json.loads(streams.out)
    return found


def test_a_council_is_founded_by_files_and_decides_by_files(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SETTLEMENT_DATABASE_URL", database_url)
    monkeypatch.setenv("SETTLEMENT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SETTLEMENT_CHAINS", "simulated")
    for name in MEMBERS:
        Path(f"{name}.public.json").write_text(json.dumps(said(capsys, "keys", "new", "--out", f"{name}.jwk")))
    seats = [part for name in MEMBERS for part in ("--member", f"{name}={name}.public.json")]
    when = "2099-01-01T00:00:00Z"
    drafted = ["council", "draft", *seats, "--ordinary", "2", "--higher", "3", "--effective-from", when]
    assert cli.run([*drafted, "--out", "council.json"]) == 0
    for name in MEMBERS:
        assert cli.run(["council", "sign", "council.json", "--key", f"{name}.jwk", "--out", f"{name}.signature"]) == 0
    shown = capsys.readouterr().err
    public = json.loads(Path("cy.public.json").read_text())["kid"]
    assert all(word in shown for word in ("cy", public, when, "ordinary 2, higher 3, pause 1, veto 2"))
    said(capsys, "keys", "new", "--out", "stranger.jwk")
    for code, *call in (
        ("key_not_member", "sign", "council.json", "--key", "stranger.jwk"),
        ("council_malformed", "draft", "--member", "ada=ada.signature", *drafted[2:]),
        ("key_malformed", "draft", "--member", "ada=council.txt", *drafted[2:]),
        ("signature_malformed", "found", "council.json", "--signature", "ada.public.json"),
        ("signature_malformed", "found", "council.json", "--signature", "council.txt"),
        ("decision_malformed", "approve", "ada.signature"),
        ("decision_malformed", "approve", "council.txt"),
    ):
        Path("council.txt").write_bytes(b"\xff[")
        assert cli.run(["council", *call]) == 1
        assert code in capsys.readouterr().err, call
    Path("dee.public.json").write_text(json.dumps(said(capsys, "keys", "new", "--out", "dee.jwk")))
    following_ = ["council", "draft", "--after", "council.json", *seats[:4], "--member", "dee=dee.public.json"]
    following_ += ["--ordinary", "2", "--higher", "2", "--effective-from", "2099-06-01T00:00:00Z"]
    owner = ["--interest", f"ada=prv_{'0' * 26}=owns it"]
    assert cli.run([*following_, *owner, "--out", "second.json"]) == 0
    first, second = (council.parse(Path(name).read_bytes()) for name in ("council.json", "second.json"))
    assert (second.version, second.parent, len(second.members)) == (2, first.digest, 3)
    assert [each.since for each in second.members] == [first.members[0].since] * 2 + [second.effective_from]
    assert [len(each.interests) for each in second.members] == [1, 0, 0]
    assert cli.run([*following_, "--after", "second.json", "--out", "third.json"]) == 0
    third = council.parse(Path("third.json").read_bytes())
    assert third.members == second.members, "a seat is kept, with its interests"
    assert cli.run([*following_, "--interest", "zoe=x=y"]) == 1
    assert "member_malformed" in capsys.readouterr().err
    few = ["council", "found", "council.json", "--signature", "ada.signature", "--signature", "bo.signature"]
    assert cli.run(few) == 1
    assert "not_enough_signatures" in capsys.readouterr().err
    made = said(capsys, *few, "--signature", "cy.signature")
    assert made["effective_from"] == when
    assert cli.run(few) == 1
    assert "council_exists" in capsys.readouterr().err

    environment = {
        "SETTLEMENT_DATABASE_URL": database_url,
        "SETTLEMENT_DATA_DIR": str(tmp_path / "data"),
        "SETTLEMENT_CHAINS": "simulated",
    }

    async def governed() -> tuple[bool, int]:
        async with open_installation(Settings.from_environment(environment)) as installation:
            register = await service.current(installation.context)
            at = times.parse(when)
            return register.council_at(at) is not None, len(register.councils)

    assert asyncio.run(governed()) == (True, 1)


def test_a_proposal_is_signed_without_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from governance import proposals
    from governance.register import DECISION_TYPE
    from settlement.core.signatures import verify_detached
    from settlement.keystore import read_key
    from tests.world import first_rates

    monkeypatch.chdir(tmp_path)
    said(capsys, "keys", "new", "--out", "ada.jwk")
    document = following(first_rates(), START)
    body = proposals.make("rates", document, proposal_id="prp_" + "0" * 26, statement="dearer")
    Path("proposal.json").write_bytes(body)
    signed: list[tuple[str, str, bytes, str]] = []

    def send(url: str, path: str, sent: bytes, signature: str) -> dict[str, Any]:
        signed.append((url, path, sent, signature))
        return {"id": "prp", "object": "rates", "subject": "", "version": 2, "state": "open", "effective_from": "",
                "statement": "", "approved": [], "threshold": "higher"}  # fmt: skip

    monkeypatch.setattr(commands, "_send", send)
    places = {"approve": "approvals", "veto": "vetoes", "withdraw": "withdrawal"}
    for choice, place in places.items():
        assert (
            cli.run(["council", "sign", "proposal.json", "--key", "ada.jwk", "--decision", choice, "--out", "d"]) == 0
        )
        assert "version 2" in capsys.readouterr().err
        assert cli.run(["council", "approve", "d", "--url", "http://x"]) == 0
        url, path, sent, signature = signed.pop()
        assert (url, path) == ("http://x", f"/v1/governance/proposals/prp_{'0' * 26}/{place}")
        assert proposals.parse_decision(sent).choice == choice
        verify_detached(signature, sent, read_key(Path("ada.jwk")).public, DECISION_TYPE)
    assert cli.run(["council", "sign", "proposal.json", "--key", "ada.jwk", "--decision", "abstain"]) == 1
    Path("proposal.json").write_bytes(changed_document(body, statement="") + b" ")
    assert cli.run(["council", "sign", "proposal.json", "--key", "ada.jwk"]) == 1


def test_drafts_follow_what_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers of a service as they are written; the service itself is in the tests of its routes."""
    monkeypatch.chdir(tmp_path)
    party, digest = "prv_" + "0" * 26, "sha256:" + "a" * 64
    ended = {"object": "participant", "state": "enacted", "document_digest": digest, "version": 1}
    document = json.loads(first_council([SigningKey(bytes([number]) * 32) for number in (1, 2, 3)], START))
    found = {"governed_by": "council", "council": {"digest": digest, **document}}
    answers = {"/v1/governance/proposals": {"data": [ended | {"subject": party}, ended | {"subject": "x"}]}}
    monkeypatch.setattr(commands, "_get", lambda url, path: (answers | {"/v1/council": found})[path])
    assert (
        cli.run(["council", "status", party, "suspended", "--reason", "does not answer", "--out", "status.json"]) == 0
    )
    status = json.loads(Path("status.json").read_bytes())
    assert (status["version"], status["parent"], status["status"]) == (2, digest, "suspended")
    assert cli.run(["council", "status", party, "gone", "--reason", "x"]) == 1
    assert "proposal_malformed" in capsys.readouterr().err
    assert cli.run(["council", "show", "--out", "council.json"]) == 0
    assert Path("council.json").read_bytes() == canonical.encode(document)
