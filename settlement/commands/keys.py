"""`settlement keys`: making key pairs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from settlement.commands.running import Json, answer

app = typer.Typer(help="Make keys.")


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
