"""`settlement usage`: what a provider does without a meter of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from settlement.commands.running import Json, answer, read

if TYPE_CHECKING:
    import httpx2

app = typer.Typer(help="Submit usage reports.")

TIMEOUT_SECONDS = 60


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A usage/1 document; - is standard input.")],
    key: Annotated[Path, typer.Option("--key", metavar="KEYFILE", help="The provider's private JWK.")],
    url: Annotated[
        str, typer.Option("--url", metavar="URL", help="The service; default: where SETTLEMENT_LISTEN says.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Sign the exact bytes of FILE, post them, and print the answer with its receipt.

    Sending the same file again is safe: the service gives the same answer.
    """
    import httpx2

    from settlement.core.errors import Unavailable
    from settlement.core.signatures import sign_detached
    from settlement.keystore import read_key

    body = read(file, "usage report")
    headers = {"content-type": "application/json", "x-jws-signature": sign_detached(read_key(key), body)}
    base = (url or own_url()).rstrip("/")
    try:
        response = httpx2.post(f"{base}/v1/usage-reports", content=body, headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        detail = f"{base} gives no answer ({type(error).__name__}); send the same file again later"
        raise Unavailable("service_unreachable", detail) from None
    document = document_of(response)
    lines = [
        f"report     {document.get('report')}, {document.get('id')}, in window {document.get('window')}",
        f"accepted   {document.get('accepted')} records, {document.get('total')} CU",
        f"refused    {len(document.get('refused', []))} records",
        *(f"           {each['pointer']}: {each['code']}: {each['detail']}" for each in document.get("refused", [])),
        f"receipt    {document.get('receipt')}",
    ]
    answer(document, lines, as_json=as_json)


def own_url() -> str:
    """Where this machine's own service listens, by its settings."""
    from settlement.config import Settings

    chosen = Settings.from_environment(os.environ)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(chosen.host, chosen.host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{chosen.port}" if ":" in host else f"http://{host}:{chosen.port}"


def document_of(response: httpx2.Response) -> dict[str, Any]:
    """The JSON object of a good answer. Raises Refused with the service's own code, Unavailable."""
    from settlement.core.errors import Problem, Refused, Unavailable

    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unavailable(
            "service_unreachable", f"what answers there is no settlement service ({response.status_code})"
        )
    if response.is_success:
        return found
    problems = tuple(
        Problem(str(each.get("pointer", "")), str(each.get("code", "")), str(each.get("detail", "")))
        for each in found.get("errors") or ()
    )
    raise Refused(str(found.get("code", response.status_code)), str(found.get("detail", "refused")), problems)
