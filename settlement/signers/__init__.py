"""Keys that sign chain transactions, opened by URI (docs/reference/signers.md).

    keystore:PATH?passphrase-file=PATH   an encrypted key file, as ``settlement keys new --keystore`` makes it
    keystore:PATH?passphrase-env=NAME
    env:NAME                             a private JWK as the text of an environment variable
    pkcs11:token=..;object=..?..         a key in an HSM (RFC 7512), with the extra ``hsm``
    awskms:KEY?region=..                 a key in AWS KMS, with the extra ``kms-aws``

Both curves everywhere. What a keeper returns is brought into one form and verified before anybody sees it. No repr, log
line or error shows key material, a passphrase or a PIN: an error names the place and never what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from settlement.chain import Signer
from settlement.core.errors import Malformed
from settlement.signers import local
from settlement.signers.uris import SignerUri

SCHEMES = ("keystore", "env", "pkcs11", "awskms")


def open_signer(uri: str, environ: Mapping[str, str]) -> Signer:
    """The signer that a URI names; the keeper of the key is asked for its public half, so it must be there.

    Raises Malformed ``signer_malformed``, ``key_malformed`` and the like, NotFound ``signer_missing``,
    ``key_file_missing``, Unavailable ``signer_unavailable`` when the keeper or its extra isn't there.
    """
    parsed = SignerUri.parse(uri)
    match parsed.scheme:
        case "keystore" | "env":
            return local.open_local(parsed, environ)
        case "pkcs11":
            from settlement.signers import pkcs11

            return pkcs11.open_token(parsed, environ)
        case "awskms":
            from settlement.signers import awskms

            return awskms.open_key(parsed)
        case _:
            raise Malformed("signer_malformed", f"a signer begins with one of {', '.join(f'{s}:' for s in SCHEMES)}")
