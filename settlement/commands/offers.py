"""`settlement offers`: what a provider asks for its models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from settlement.commands.running import Json, answer, read, table
from settlement.commands.usage import TIMEOUT_SECONDS, document_of, own_url

app = typer.Typer(help="Offers of providers: publish, show.")

Url = Annotated[str, typer.Option("--url", metavar="URL", help="The service; default: where SETTLEMENT_LISTEN says.")]


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An offer/1 document; - is standard input.")],
    key: Annotated[Path, typer.Option("--key", metavar="KEYFILE", help="The provider's private JWK.")],
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Sign the exact bytes of FILE and publish them as the provider's next offer. Sending it again is safe."""
    import httpx2

    from settlement.core.errors import Unavailable
    from settlement.core.offers import SIGNATURE_TYPE
    from settlement.core.signatures import sign_detached
    from settlement.keystore import read_key

    body = read(file, "offer")
    signature = sign_detached(read_key(key), body, SIGNATURE_TYPE)
    headers = {"content-type": "application/json", "x-jws-signature": signature}
    base = (url or own_url()).rstrip("/")
    try:
        response = httpx2.put(f"{base}/v1/providers/me/offers", content=body, headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        detail = f"{base} gives no answer ({type(error).__name__}); send the same file again later"
        raise Unavailable("service_unreachable", detail) from None
    document = document_of(response)
    line = f"offer {document.get('version')} holds from {document.get('effective_from')}  {document.get('digest')}"
    answer(document, [line], as_json=as_json)


@app.command()
def show(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's id.")],
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Show what a provider asks, version by version, as multiples of par."""
    import httpx2

    from settlement.core import offers, times
    from settlement.core.errors import Unavailable
    from settlement.core.multipliers import to_text

    base = (url or own_url()).rstrip("/")
    try:
        response = httpx2.get(f"{base}/v1/providers/{provider}/offers", timeout=TIMEOUT_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable("service_unreachable", f"{base} gives no answer ({type(error).__name__})") from None
    document = document_of(response)
    rows: list[list[object]] = []
    for each in document["data"]:
        offer = offers.parse(each["document"].encode())
        since = times.text(offer.effective_from)
        rows += [[offer.version, since, model, tier or "", to_text(ask)] for (model, tier), ask in offer.asks.items()]
        rows.append([offer.version, since, "everything else", "", to_text(offer.usual)])
    lines = table(["version", "in force from", "model", "tier", "ask"], rows) if rows else ["it asks par"]
    answer(document, lines, as_json=as_json)
