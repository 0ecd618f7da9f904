"""`settlement keys`: making key pairs, and signing with them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from settlement.commands.running import Json, answer, read, with_installation

if TYPE_CHECKING:
    from settlement.bootstrap import Installation
    from settlement.chain import Algorithm, Signer
    from settlement.signers.local import LocalSigner

app = typer.Typer(help="Make keys, and sign with them.")

Curve = Annotated[str, typer.Option("--curve", metavar="C", help="ed25519 or secp256k1; Stellar takes ed25519 alone.")]
PassphraseFile = Annotated[Path | None, typer.Option("--passphrase-file", metavar="FILE", help="Its first line.")]
PassphraseEnv = Annotated[str, typer.Option("--passphrase-env", metavar="NAME", help="An environment variable.")]


@app.command()
def new(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where the private key goes, with mode 0600.")
    ] = Path("settlement-key.jwk"),
    keystore: Annotated[
        Path | None, typer.Option("--keystore", metavar="FILE", help="Encrypt it into this file instead.")
    ] = None,
    curve: Curve = "ed25519",
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseEnv = "",
    as_json: Json = False,
) -> None:
    """Make a key pair: the private key goes to a file that must not exist, the public one is printed.

    A plain file holds an Ed25519 JWK; with --keystore the key is encrypted under a passphrase and may be for a chain.
    """
    from settlement.core.canonical import encode
    from settlement.core.signatures import SigningKey
    from settlement.keystore import write_key

    if keystore is not None:
        _encrypt(keystore, _curve(curve), os.urandom(32), passphrase_file, passphrase_env, as_json=as_json)
        return
    if curve != "ed25519":
        raise typer.BadParameter(
            "only an encrypted file (--keystore) holds a key of another curve", param_hint="--curve"
        )
    key = SigningKey(os.urandom(32))
    write_key(out, key, os.urandom)
    public = key.public.jwk()
    document = {"kid": key.public.kid, "public": public, "private_file": str(out)}
    answer(
        document,
        [f"public key   {encode(public).decode()}", f"kid          {key.public.kid}", f"private key  {out}"],
        as_json=as_json,
    )


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A private JWK, or 64 hex digits; - is standard input.")],
    keystore: Annotated[Path, typer.Option("--keystore", metavar="FILE", help="The encrypted key file to make.")],
    curve: Curve = "ed25519",
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseEnv = "",
    as_json: Json = False,
) -> None:
    """Encrypt a key that exists: a private JWK of either curve, or its 32 bytes in hexadecimal with --curve."""
    from settlement.signers import local

    text = read(file, "key file")
    secret = text.decode("ascii", "replace").strip()
    if _HEX.fullmatch(secret):
        _encrypt(keystore, _curve(curve), bytes.fromhex(secret), passphrase_file, passphrase_env, as_json=as_json)
        return
    signer = local.parse(text, "standard input" if str(file) == "-" else f"the file {file}")
    _write(keystore, signer, passphrase_file, passphrase_env, as_json=as_json)


@app.command()
def show(
    uri: Annotated[str, typer.Argument(metavar="SIGNER", help="A signer's URI, such as keystore:treasury.jwe.")],
    as_json: Json = False,
) -> None:
    """Open a signer, let it sign, check the signature, and print its public key."""
    import asyncio

    from settlement.signers import curves, open_signer

    signer = open_signer(uri, os.environ)
    signature = asyncio.run(signer.sign(_TRIAL))
    assert curves.verifies(signer.algorithm, signer.public_key, _TRIAL, signature), "a signer returns what verifies"
    _show(signer, {}, as_json=as_json)


@app.command()
def rotate(
    uri: Annotated[str, typer.Argument(metavar="SIGNER", help="The service's new key, such as file:new-key.jwk.")],
    as_json: Json = False,
) -> None:
    """Hand the service's signature over to a new key. Every process must be started again with the new one."""
    from settlement.keystore import open_signing_key

    new_key = open_signing_key(uri, os.environ)

    async def use(installation: Installation) -> tuple[str, int]:
        from settlement.services import service_keys

        old = installation.context.key.public.kid
        return old, (await service_keys.rotate(installation.context, new_key)).journal_seq

    old, seq = with_installation(use)
    document = {"kid": new_key.public.kid, "previous": old, "journal_seq": seq}
    lines = [
        f"{new_key.public.kid} signs from journal entry {seq} on, in the place of {old}",
        f"now set SETTLEMENT_SIGNER={uri} and start every process of the service again",
        "keep the old key: nothing more is signed with it, and nothing that it signed is lost",
    ]
    answer(document, lines, as_json=as_json)


@app.command()
def sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any file; - is standard input.")],
    key: Annotated[Path, typer.Option("--key", metavar="KEYFILE", help="A private JWK, as `keys new` makes it.")],
    typ: Annotated[
        str, typer.Option("--typ", metavar="T", help="A type for the protected header, such as usage-report+jws.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Print the detached JWS of the exact bytes of FILE: the value of the header x-jws-signature."""
    from settlement.core.signatures import sign_detached, verify_detached
    from settlement.keystore import read_key

    body = read(file, "file")
    signer = read_key(key)
    value = sign_detached(signer, body, typ or None)
    verify_detached(value, body, signer.public)  # a --typ that is no media type is refused here, not by the service
    document = {"kid": signer.public.kid, "signature": value}
    answer(document, [value], as_json=as_json)


_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_TRIAL = bytes(32)


def _curve(text: str) -> Algorithm:
    if text not in ("ed25519", "secp256k1"):
        raise typer.BadParameter("ed25519 or secp256k1", param_hint="--curve")
    return cast("Algorithm", text)


def _encrypt(
    path: Path, curve: Algorithm, secret: bytes, passphrase_file: Path | None, passphrase_env: str, *, as_json: bool
) -> None:
    from settlement.signers.local import LocalSigner

    _write(path, LocalSigner(curve, secret), passphrase_file, passphrase_env, as_json=as_json)


def _write(
    path: Path, signer: LocalSigner, passphrase_file: Path | None, passphrase_env: str, *, as_json: bool
) -> None:
    """Encrypt under the passphrase of a file, of a variable, or typed twice by a person."""
    from settlement.signers import local, uris

    settings = {"passphrase-env": passphrase_env}
    if passphrase_file is not None:
        settings["passphrase-file"] = str(passphrase_file)
    if any(settings.values()) or os.environ.get(local.PASSPHRASE) or not sys.stdin.isatty():
        passphrase = uris.secret(settings, "passphrase", os.environ, local.PASSPHRASE)
    else:
        passphrase = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True).encode()
    local.write(path, signer, passphrase, os.urandom)
    _show(signer, {"private_file": str(path)}, as_json=as_json)


def _show(signer: Signer, more: dict[str, str], *, as_json: bool) -> None:
    from settlement.core.canonical import encode
    from settlement.signers.local import public_jwk

    public = public_jwk(signer.algorithm, signer.public_key)
    document = {"algorithm": signer.algorithm, "public_key": signer.public_key.hex(), "public": public, **more}
    lines = [
        f"algorithm    {signer.algorithm}",
        f"public key   {signer.public_key.hex()}",
        f"as JWK       {encode(public).decode()}",
    ]
    answer(document, [*lines, *(f"private key  {file}" for file in more.values())], as_json=as_json)
