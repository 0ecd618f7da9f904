"""Signer URIs: a scheme, a path with its own syntax, and named settings behind a question mark."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from settlement.core.errors import Malformed, NotFound
from settlement.signers.files import read_secret

MAX_SECRET = 4096


@dataclass(frozen=True, slots=True)
class SignerUri:
    """``scheme:path?name=value&name=value``. Names and values are percent-decoded, the path is left to its scheme."""

    scheme: str
    path: str = field(repr=False)
    settings: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, uri: str) -> SignerUri:
        """Raises Malformed ``signer_malformed``, which never repeats the URI: somebody may have put a secret there."""
        scheme, colon, rest = uri.partition(":")
        path, _, query = rest.partition("?")
        if not colon or not path:
            raise Malformed("signer_malformed", "a signer is a URI such as keystore:PATH?passphrase-file=PATH")
        settings: dict[str, str] = {}
        for part in filter(None, query.split("&")):
            name, equals, value = part.partition("=")
            name = unquote(name)
            if not equals or name in settings:
                raise Malformed("signer_malformed", "behind the ? of a signer come different settings, name=value")
            settings[name] = unquote(value)
        return cls(scheme, path, settings)

    def only(self, *names: str) -> Mapping[str, str]:
        """The settings, when they are among `names`. Raises Malformed ``signer_malformed``."""
        unknown = sorted(self.settings.keys() - set(names))
        if unknown:
            detail = f"{self.scheme}: knows the settings {', '.join(names)}; {len(unknown)} others are given"
            raise Malformed("signer_malformed", detail)
        return self.settings


def secret(settings: Mapping[str, str], stem: str, environ: Mapping[str, str], default: str = "") -> bytes:
    """The secret that ``<stem>-file`` or ``<stem>-env`` names, or the environment variable `default`.

    One line feed at its end does not count. Raises Malformed ``signer_malformed`` when both are given or it is empty,
    NotFound ``signer_missing``, and what `read_secret` raises.
    """
    file, name = settings.get(f"{stem}-file", ""), settings.get(f"{stem}-env", "")
    if file and name:
        raise Malformed("signer_malformed", f"{stem}-file and {stem}-env are given; one of them says where it is")
    if file:
        found, where = read_secret(Path(file).expanduser(), MAX_SECRET), f"the file {file}"
    else:
        name = name or default
        if not environ.get(name):
            raise NotFound("signer_missing", f"the environment variable {name} should hold the {stem}")
        found, where = os.fsencode(environ[name]), f"the environment variable {name}"
    found = found.removesuffix(b"\n").removesuffix(b"\r")
    if not found or len(found) > MAX_SECRET:
        raise Malformed("signer_malformed", f"{where} holds no {stem} of 1 to {MAX_SECRET} bytes")
    return found
