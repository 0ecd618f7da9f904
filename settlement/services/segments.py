"""Sealed segments: a window's records and reports as Parquet files that are named by their digest.

zstd; ids and digests are fixed-length bytes (no logical UUID type, which some readers refuse), charges decimals without
places. Needs pyarrow, the extra ``archive``. A file appears complete, read-only and under its digest, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from settlement.core.errors import Broken, Malformed, Unavailable

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:  # pragma: no cover - the extra is not installed
    pa = pq = None

GROUP_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed file: what is in it, its digest in text form, its size, its rows."""

    content: str
    digest: str
    bytes: int
    rows: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.content}-{self.digest.removeprefix('sha256:')}.parquet"


def require_pyarrow() -> None:
    """Raises Unavailable ``extra_missing`` when the extra isn't installed."""
    if pa is None:
        raise Unavailable("extra_missing", "segments need pyarrow: install compute-settlement[archive]")


def columns(content: str) -> Any:
    """The schema of a segment's content: ``records`` or ``reports``."""
    require_pyarrow()
    text, number = pa.string(), pa.int64()
    fields: Mapping[str, Sequence[tuple[str, Any]]] = {
        "records": (
            ("index", number), ("id", pa.binary(16)), ("provider", text), ("consumer", text), ("report", pa.binary(32)),
            ("line", pa.int32()), ("rates", pa.int32()), ("charge_pico", pa.decimal128(38, 0)),
            ("salt", pa.binary(16)), ("record", pa.binary()),
        ),
        "reports": (
            ("journal_seq", number), ("id", text), ("provider", text), ("report", text), ("seq", number),
            ("received_at", pa.timestamp("us", tz="UTC")), ("digest", pa.binary(32)), ("kid", text),
            ("signature", text), ("accepted", pa.int32()), ("total", number), ("receipt", text), ("body", pa.binary()),
        ),
    }  # fmt: skip
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields[content]])


class Sealing:
    """Rows on their way into a segment in `folder`; `seal` names the file by its digest."""

    def __init__(self, folder: Path, content: str) -> None:
        self._content = content
        self._schema = columns(content)
        self._folder = folder
        self._part = folder / f"{content}.part"
        self._writer = pq.ParquetWriter(self._part, self._schema, compression="zstd", store_schema=False)
        self._rows: list[tuple[Any, ...]] = []
        self._count = 0

    def add(self, row: tuple[Any, ...]) -> None:
        """One row, in the order of the columns."""
        self._rows.append(row)
        self._count += 1
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def seal(self) -> Segment:
        """Finish the file, name it by its digest, and take away the right to write it."""
        self._flush()
        self._writer.close()
        with self._part.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        made = Segment(self._content, f"sha256:{digest}", self._part.stat().st_size, self._count)
        self._part.chmod(0o444)
        self._part.replace(self._folder.joinpath(made.name))
        return made

    def _flush(self) -> None:
        if self._rows or not self._count:
            values = list(zip(*self._rows, strict=True)) or [() for _ in self._schema]
            arrays = [pa.array(column, field.type) for column, field in zip(values, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._rows = []


def rows(folder: Path, segment: Segment) -> Iterable[dict[str, Any]]:
    """The rows of a segment whose bytes are those of its name.

    Raises Broken ``segment_changed``, Malformed ``segment_missing`` or ``segment_malformed``.
    """
    require_pyarrow()
    path = folder.joinpath(segment.name)
    try:
        with path.open("rb") as file:
            digest = f"sha256:{file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        raise Malformed("segment_missing", f"there is no segment {segment.name} beside the manifest") from None
    if digest != segment.digest:
        raise Broken("segment_changed", f"{segment.name} has the digest {digest}")
    file_of = pq.ParquetFile(path)
    if not file_of.schema_arrow.equals(columns(segment.content)):
        raise Malformed("segment_malformed", f"{segment.name} has other columns than {segment.content}")
    for batch in file_of.iter_batches():
        yield from batch.to_pylist()
