"""`settlement rates` and `value report`: built, published, shown, compared, explained and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commanding import Command, commanding, installed

pytestmark = pytest.mark.database


@pytest.fixture
def said(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Command:
    """Runs a command on a fresh installation."""
    installed(database_url, tmp_path, monkeypatch)
    return commanding(capfdbinary)


def test_rates_are_built_published_and_shown(said: Command, tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    built = said("rates", "build", "--effective-from", "2099-01-01T00:00:00Z", "--out", file, "--json")
    assert (built.code, built.json["version"]) == (0, 2)
    published = said("rates", "publish", file, "--json")
    assert (published.json["version"], published.json["effective_from"]) == (2, "2099-01-01T00:00:00Z")
    twice = said("rates", "publish", file)
    assert (twice.code, "version_not_next" in twice.err) == (1, True)
    shown = said("rates", "show", "gpt-5", "--json").json
    assert shown["version"] == 1  # the new one is not in force yet
    assert {"input_tokens", "output_tokens"} <= {row["meter"] for row in shown["rates"]}
    assert said("rates", "show", "no-such-model").code == 1
    assert said("rates", "diff", 1, file).out == "0 models more, 0 fewer, 0 rates changed\n"
    doubled = json.loads(file.read_bytes())
    rates = doubled["models"]["gpt-5"]["tiers"]["standard"]["bands"][0]["rates"]
    rates["input_tokens"] *= 2
    other = tmp_path / "other.json"
    other.write_text(json.dumps(doubled, sort_keys=True, separators=(",", ":")))
    (changed,) = said("rates", "diff", "current", other, "--json").json["changed"]
    assert (changed["model"], changed["meter"], changed["percent"]) == ("gpt-5", "input_tokens", "+100")
    explained = said("rates", "explain", "gpt-5").out
    assert "gpt-5 in rate table 1, by the method market" in explained
    assert "microCU per million units" in explained
    assert said("rates", "explain", "no-such-model").code == 1
    chart = said("rates", "plot", "gpt-5", "--out", tmp_path / "rates.svg")
    assert (chart.code, (tmp_path / "rates.svg").read_text().startswith("<svg")) == (0, True), chart.err
    assert said("rates", "plot", "no-such-model", "--out", tmp_path / "no.svg").code == 1
    report = said("value", "report", "--json").json
    assert (report["fixings"], report["frozen"]) == (0, [])
    assert all(each["wanted"] for each in report["targets"])
    past = said("rates", "build", "--effective-from", "2020-01-01T00:00:00Z")
    file.write_text(past.out)
    assert "effective_date_in_past" in said("rates", "publish", file).err
