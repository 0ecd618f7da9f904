"""`settlement keys`: making key pairs, and signing with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from settlement.commands.running import Json, answer, read

app = typer.Typer(help="Make keys, and sign with them.")


@app.command()
def new(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where the private key goes, with mode 0600.")
    ] = Path("settlement-key.jwk"),
    as_json: Json = False,
) -> None:
    """Make an Ed25519 key pair: the private JWK goes to a file that must not exist, the public one is printed."""
    from settlement.core.canonical import encode
    from settlement.core.signatures import SigningKey
    from settlement.keystore import write_key

    key = SigningKey(os.urandom(32))
    write_key(out, key, os.urandom)
    public = key.public.jwk()
    document = {"kid": key.public.kid, "public": public, "private_file": str(out)}
    answer(
        document,
        [f"public key   {encode(public).decode()}", f"kid          {key.public.kid}", f"private key  {out}"],
        as_json=as_json,
    )


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
