"""Secrets in files that nobody else can read, written complete or not at all, and never over another one."""

from __future__ import annotations

import os
from pathlib import Path

from settlement.core.errors import Conflict, Malformed, NotFound
from settlement.core.ids import Entropy


def read_secret(path: Path, limit: int) -> bytes:
    """The content of a secret file, at most `limit` bytes and one, so that a caller sees what is too long.

    Raises NotFound ``key_file_missing``, Malformed ``key_file_unreadable``, ``key_file_open`` when others than owner
    and group may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise NotFound("key_file_missing", f"there is no key file {path}") from None
    except OSError as error:
        raise Malformed("key_file_unreadable", f"the key file {path} can't be read: {error.strerror}") from None
    if mode & 0o007:
        raise Malformed("key_file_open", f"everybody on this machine may read the private key {path}: chmod 600 it")
    return content


def write_secret(path: Path, text: str, entropy: Entropy) -> None:
    """Write a new file of mode 0600. Raises Conflict ``key_file_exists``, Malformed ``key_file_unwritable``."""
    fresh = path.with_name(f"{path.name}.{entropy(8).hex()}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Malformed("key_file_unwritable", f"{path} can't be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w") as out:
            out.write(text + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.link(fresh, path)  # unlike a rename, a link never replaces a key that is there
    except FileExistsError:
        raise Conflict("key_file_exists", f"{path} exists; a key is never overwritten") from None
    except OSError as error:
        raise Malformed("key_file_unwritable", f"{path} can't be written: {error.strerror}") from None
    finally:
        fresh.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
