"""Signing keys: by URI, in files that nobody else can read, made once."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from settlement.core.errors import Conflict, Malformed, NotFound, SettlementError
from settlement.core.signatures import SigningKey
from settlement.keystore import open_signing_key, own_key, read_key, write_key
from settlement.signers.files import write_secret
from settlement.signers.sealed import seal

KEY = SigningKey(bytes(range(32)))
SECRET = KEY.jwk()["d"]


def test_a_written_key_is_private_and_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "key.jwk"
    write_key(file, KEY, os.urandom)
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_key(file).public == KEY.public
    assert open_signing_key(f"file:{file}", {}).public == KEY.public
    assert list(tmp_path.iterdir()) == [file]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "key.jwk"
    write_key(file, KEY, os.urandom)
    with pytest.raises(Conflict, match="key_file_exists"):
        write_key(file, SigningKey(bytes(32)), os.urandom)
    assert read_key(file).public == KEY.public
    assert list(tmp_path.iterdir()) == [file]


def test_of_many_who_come_first_all_get_the_same_key(tmp_path: Path) -> None:
    file = tmp_path / "key.jwk"
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: own_key(file, os.urandom).public.kid, range(64)))
    assert len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [file]


def test_a_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key.jwk"
    write_key(file, KEY, os.urandom)
    file.chmod(0o644)
    with pytest.raises(Malformed, match="key_file_open"):
        read_key(file)
    file.chmod(0o640)
    assert read_key(file).public == KEY.public


def test_a_signer_in_an_environment_variable() -> None:
    assert open_signing_key("env:MY_KEY", {"MY_KEY": json.dumps(KEY.jwk())}).public == KEY.public
    with pytest.raises(NotFound, match="MY_KEY"):
        open_signing_key("env:MY_KEY", {})


@pytest.mark.parametrize("scheme", ["pkcs11", "awskms"])
def test_a_key_that_never_leaves_its_keeper_is_not_the_service_key(scheme: str) -> None:
    with pytest.raises(Malformed, match="chains' keys can") as refused:
        open_signing_key(f"{scheme}:something", {})
    assert refused.value.code == "signer_unsuited"


def test_an_encrypted_key_file_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    file, words = tmp_path / "service.jwe", b"correct horse battery staple"
    write_secret(file, seal(json.dumps(KEY.jwk()).encode(), words), os.urandom)
    assert SECRET not in file.read_text()
    environ = {"WORDS": words.decode(), "OTHER": "incorrect horse battery staple"}
    assert open_signing_key(f"keystore:{file}?passphrase-env=WORDS", environ).public == KEY.public
    with pytest.raises(Malformed, match="key_sealed"):
        open_signing_key(f"keystore:{file}?passphrase-env=OTHER", environ)


@pytest.mark.parametrize("uri", ["", "file", "file:", "env:", "/etc/key", "http://key"])
def test_anything_else_is_no_signer(uri: str) -> None:
    with pytest.raises(Malformed, match="signer_malformed"):
        open_signing_key(uri, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2",
        "[]",
        json.dumps({"d": SECRET}),
        json.dumps(KEY.jwk() | {"x": SigningKey(bytes(32)).jwk()["x"]}),
        json.dumps(KEY.jwk())[:-1] + ',"d":"hunter2"}',
        " " * 20_000 + json.dumps(KEY.jwk()),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key.jwk"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(SettlementError) as refused:
        read_key(file)
    assert refused.value.code == "key_malformed"
    assert str(file) in refused.value.detail
    assert SECRET not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_missing_file_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="key_file_missing"):
        open_signing_key(f"file:{tmp_path}/none.jwk", {})
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="key_file_unwritable"):
        write_key(tmp_path / "none" / "key.jwk", KEY, os.urandom)
