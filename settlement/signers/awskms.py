"""Keys in AWS KMS (extra ``kms-aws``).

    awskms:alias/treasury?region=eu-central-1
    awskms:arn:aws:kms:..                       credentials as boto3 finds them; `endpoint` for a KMS elsewhere

KeySpec ``ECC_NIST_EDWARDS25519`` signs whole messages of at most 4,096 bytes (RAW), ``ECC_SECG_P256K1`` digests of 32
bytes (DIGEST).
"""

from __future__ import annotations

import asyncio
from typing import Any

from settlement.chain import Algorithm, Unreachable
from settlement.core.errors import Malformed, NotFound, Unavailable
from settlement.signers import curves
from settlement.signers.uris import SignerUri

MAX_RAW = 4096
"""Bytes of a message that KMS signs with Ed25519."""

_HOW = {"ed25519": ("RAW", "ED25519_SHA_512"), "secp256k1": ("DIGEST", "ECDSA_SHA_256")}


class KmsSigner:
    """A key that never leaves KMS."""

    def __init__(self, client: Any, key_id: str, algorithm: Algorithm, public: bytes) -> None:
        self._client = client
        self._key_id = key_id
        self._algorithm = algorithm
        self._public = public

    @property
    def algorithm(self) -> Algorithm:
        return self._algorithm

    @property
    def public_key(self) -> bytes:
        return self._public

    def __repr__(self) -> str:
        return f"KmsSigner({self._algorithm}, {self._public.hex()})"

    async def sign(self, message: bytes) -> bytes:
        """See settlement.chain.Signer. Raises ValueError too for more than 4,096 bytes with an Ed25519 key."""
        return await asyncio.to_thread(self._sign, message)

    def _sign(self, message: bytes) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        curves.check_message(self._algorithm, message)
        if len(message) > MAX_RAW:
            raise ValueError(f"AWS KMS signs at most {MAX_RAW} bytes with Ed25519, not {len(message)}")
        kind, how = _HOW[self._algorithm]
        try:
            answer = self._client.sign(KeyId=self._key_id, Message=message, MessageType=kind, SigningAlgorithm=how)
            signature = bytes(answer["Signature"])
        except (BotoCoreError, ClientError, KeyError) as error:
            raise Unreachable(f"AWS KMS does not sign: {_said(error)}") from None
        try:
            signature = signature if self._algorithm == "ed25519" else curves.low_s(signature)
        except ValueError:
            signature = b""
        if not curves.verifies(self._algorithm, self._public, message, signature):
            raise Unreachable("AWS KMS returned a signature that is not its key's")
        return signature


def open_key(uri: SignerUri) -> KmsSigner:
    """The key that an ``awskms:`` URI names.

    Raises Malformed ``signer_malformed``, ``key_unsuited``, NotFound ``signer_missing``, Unavailable
    ``signer_unavailable`` when the extra isn't installed or KMS gives no answer.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise Unavailable("signer_unavailable", "awskms: needs the extra kms-aws (boto3)") from None
    settings = uri.only("region", "endpoint")
    try:
        client = boto3.client(
            "kms",
            region_name=settings.get("region"),
            endpoint_url=settings.get("endpoint"),
            config=Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "max_attempts": 3}),
        )
        answer = client.get_public_key(KeyId=uri.path)
    except ClientError as error:
        if error.response["Error"]["Code"] == "NotFoundException":
            raise NotFound("signer_missing", "AWS KMS has no such key") from None
        raise Unavailable("signer_unavailable", f"AWS KMS does not show the key: {_said(error)}") from None
    except (BotoCoreError, ValueError) as error:
        raise Unavailable("signer_unavailable", f"AWS KMS can't be used: {type(error).__name__}") from None
    if answer.get("KeyUsage") != "SIGN_VERIFY":
        raise Malformed("key_unsuited", "the key in AWS KMS is not one to sign with")
    algorithm, public = curves.from_spki(bytes(answer["PublicKey"]), "the key in AWS KMS")
    return KmsSigner(client, uri.path, algorithm, public)


def _said(error: Exception) -> str:
    """The kind of an error and AWS's code for it; its text may name accounts and keys."""
    response = getattr(error, "response", None)
    return str(response["Error"]["Code"]) if response else type(error).__name__
