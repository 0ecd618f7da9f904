"""Traces of several makers are read alike; what is no trace is refused with the line and column at fault."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import pytest

from settlement.core.errors import Malformed, NotFound
from settlement.demo.traffic import Request, generated, read_trace

CSV = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:47.5000000,10,5\n2023-11-16 18:15:46.2500000,7,0\n"
READ = [Request(0, 7, 0), Request(1_250_000, 10, 5)]


def test_csv_and_json_lines_plain_and_packed_say_the_same(tmp_path: Path) -> None:
    lines = (
        '{"timestamp_ms": 2500, "input_length": 10, "output_length": 5}\n\n'
        '{"timestamp_ms": "1250", "input_length": 7.0, "output_length": 0}\n'
    )
    for name, text in (("a.csv", CSV), ("a.jsonl", lines), ("b.ndjson.gz", lines), ("b.csv.gz", CSV)):
        file = tmp_path / name
        file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        assert read_trace(file) == READ, name


def test_cached_tokens_and_the_model_are_taken_when_they_are_there(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("time,input_tokens,output_tokens,cached_tokens,model\n1,10,5,4,m\n2,10,5,99,\n")
    assert read_trace(file) == [Request(0, 10, 5, 4, "m"), Request(1_000_000, 10, 5, 10)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no requests"),
        (b"a,b\n1,2\n", "no column for time"),
        (b"time,input_tokens,output_tokens\n1,many,2\n", "line 2: input_tokens is 'many'"),
        (b"time,input_tokens,output_tokens\n1,-1,2\n", "line 2: input_tokens"),
        (b"time,input_tokens,output_tokens\n1,1e99,2\n", "line 2: input_tokens"),
        (b"time,input_tokens,output_tokens\n1,NaN,2\n", "line 2: input_tokens"),
        (b"time,input_tokens,output_tokens\n1,5\n", "line 2: output_tokens"),
        (b"time,input_tokens,output_tokens\nnever,1,2\n", "line 2: time is 'never'"),
        (b"time,input_tokens,output_tokens\n1e999999999,1,2\n", "line 2: time"),
        (b"time,input_tokens,output_tokens\nInfinity,1,2\n", "line 2: time"),
        (b"time,input_tokens,output_tokens\nNaN,1,2\n", "line 2: time"),
        (b"\xff\xfe\x00binary", "can't be read"),
        (b"\x1f\x8bnot gzip", "can't be read"),
        (gzip.compress(CSV.encode(), mtime=0)[:-12], "can't be read"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_bytes(content)
    with pytest.raises(Malformed) as caught:
        read_trace(file)
    assert caught.value.code == "trace_malformed"
    assert said in caught.value.detail
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("content", ["[1]\n", "3\n", "{\n", "[" * 100_000 + "\n"])
def test_lines_that_are_no_objects_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(content)
    with pytest.raises(Malformed, match="trace_malformed"):
        read_trace(file)


def test_a_damaged_archive_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(CSV.encode() * 50))
    packed[20:40] = bytes(20)
    (tmp_path / "trace.csv.gz").write_bytes(packed)
    with pytest.raises(Malformed, match="trace_malformed"):
        read_trace(tmp_path / "trace.csv.gz")
    with pytest.raises(Malformed, match="trace_malformed"):
        read_trace(tmp_path)
    with pytest.raises(NotFound, match="file_missing"):
        read_trace(tmp_path / "none.csv")


def test_generated_traffic_is_the_same_for_the_same_seed() -> None:
    first = generated(500, 7)
    assert first == generated(500, 7)
    assert first != generated(500, 8)
    assert all(before.offset <= after.offset for before, after in pairwise(first))
    assert all(3 <= request.input <= 8_000 and 7 <= request.output <= 1_000 for request in first)
