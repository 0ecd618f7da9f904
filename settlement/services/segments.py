"""Sealed segments: a window's records and reports as Parquet files that are named by their digest.

zstd; ids and digests are fixed-length bytes (no logical UUID type, which some readers refuse), charges decimals without
places. Needs pyarrow, the extra ``archive``. A file appears complete, on disk, read-only and under its digest, or not
at all. Rows come in groups that fit in memory, each with the least and the greatest of its first column.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Self

from settlement.core.errors import Broken, Malformed, Unavailable

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:  # pragma: no cover - the extra is not installed
    pa = pc = pq = None

GROUP_ROWS = 50_000
GROUP_BYTES = 16 * 1024 * 1024
"""A group of rows ends at whichever comes first; the bytes are those of bodies and records."""
NULLABLE = frozenset({"key", "hashes"})

Row = dict[str, Any]


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
    """The schema of a segment's content: ``records``, ``reports`` or ``salts``."""
    require_pyarrow()
    text, number = pa.string(), pa.int64()
    fields: Mapping[str, Sequence[tuple[str, Any]]] = {
        "records": (
            ("index", number), ("id", pa.binary(16)), ("provider", text), ("consumer", text), ("report", pa.binary(32)),
            ("line", pa.int32()), ("rates", pa.int32()), ("charge_pico", pa.decimal128(38, 0)), ("record", pa.binary()),
        ),
        "reports": (
            ("journal_seq", number), ("id", text), ("provider", text), ("report", text), ("seq", number),
            ("received_at", pa.timestamp("us", tz="UTC")), ("digest", pa.binary(32)), ("kid", text),
            ("signature", text), ("accepted", pa.int32()), ("total", number), ("receipt", text), ("body", pa.binary()),
        ),
        "salts": (("consumer", text), ("key", pa.binary(32)), ("hashes", pa.binary())),
    }  # fmt: skip
    return pa.schema([pa.field(name, kind, nullable=name in NULLABLE) for name, kind in fields[content]])


class Sealing:
    """Rows on their way into a segment in `folder`; `seal` names the file by its digest. Leaves nothing half-done."""

    def __init__(self, folder: Path, content: str) -> None:
        self._content = content
        self._schema = columns(content)
        self._folder = folder
        handle, name = tempfile.mkstemp(prefix=f"{content}-", suffix=".part", dir=folder)
        os.close(handle)
        self._part = Path(name)
        self._writer = pq.ParquetWriter(self._part, self._schema, compression="zstd", store_schema=False)
        self._rows: list[tuple[Any, ...]] = []
        self._size = self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._part.unlink(missing_ok=True)

    def add(self, row: tuple[Any, ...]) -> None:
        """One row, in the order of the columns; the last one is the one that may be large."""
        self._rows.append(row)
        self._count += 1
        self._size += len(row[-1] or b"")
        if len(self._rows) >= GROUP_ROWS or self._size >= GROUP_BYTES:
            self._flush()

    def seal(self) -> Segment:
        """Finish the file, take away the right to write it, bring it to the disk, and name it by its digest."""
        self._flush()
        self._writer.close()
        self._part.chmod(0o444)
        with self._part.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        made = Segment(self._content, f"sha256:{digest}", self._part.stat().st_size, self._count)
        self._part.replace(self._folder.joinpath(made.name))
        sync(self._folder)
        return made

    def _flush(self) -> None:
        if self._rows or not self._count:
            values = list(zip(*self._rows, strict=True)) or [() for _ in self._schema]
            arrays = [pa.array(column, field.type) for column, field in zip(values, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._rows, self._size = [], 0


def sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_present(folder: Path, segment: Segment) -> Path:
    """The path of a segment that is there in its size. Raises Unavailable ``segment_missing``, Broken."""
    path = folder.joinpath(segment.name)
    try:
        size = path.stat().st_size
    except OSError:
        raise Unavailable("segment_missing", f"there is no segment {segment.name} in {folder}") from None
    if size != segment.bytes:
        raise Broken("segment_changed", f"{segment.name} has {size} bytes and not {segment.bytes}")
    return path


def rows(folder: Path, segment: Segment, party: str | None = None) -> Iterator[Row]:
    """The rows of a segment whose bytes are those of its name; with `party`, those of it as consumer or provider.

    Raises Broken ``segment_changed``, Unavailable ``segment_missing``, Malformed ``segment_malformed``.
    """
    require_pyarrow()
    path = check_present(folder, segment)
    with path.open("rb") as file:
        digest = f"sha256:{file_digest(file, 'sha256').hexdigest()}"
    if digest != segment.digest:
        raise Broken("segment_changed", f"{segment.name} has the digest {digest}")
    opened = _opened(path, segment)
    for number in range(opened.num_row_groups):
        for batch in opened.iter_batches(batch_size=4_096, row_groups=[number]):
            kept = batch if party is None else batch.filter(_of(batch, party))
            yield from kept.to_pylist()


def find(folder: Path, segment: Segment, first: int, last: int, accept: Callable[[Row], bool]) -> Row | None:
    """The accepted row whose first column is from `first` to `last`; only groups that can have it are read.

    The file's digest is not computed: hold what is found to something that was signed. Raises as `rows` does.
    """
    require_pyarrow()
    file = _opened(check_present(folder, segment), segment)
    for number in range(file.num_row_groups):
        known = file.metadata.row_group(number).column(0).statistics
        if known is None or (known.min <= last and known.max >= first):
            group = file.read_row_group(number)
            place = group.column(0)
            wanted = group.filter(pc.and_(pc.greater_equal(place, first), pc.less_equal(place, last)))
            for row in wanted.to_pylist():
                if accept(row):
                    found: Row = row
                    return found
    return None


def _of(batch: Any, party: str) -> Any:
    return pc.or_(pc.equal(batch.column("consumer"), party), pc.equal(batch.column("provider"), party))


def _opened(path: Path, segment: Segment) -> Any:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise Malformed("segment_malformed", f"{segment.name} can't be read: {error}") from None
    if not file.schema_arrow.equals(columns(segment.content)):
        raise Malformed("segment_malformed", f"{segment.name} has other columns than {segment.content}")
    return file
