"""From an exchange to exact meters, or to a named refusal: what was used, as a usage record states it.

A stream may report many times. Objects of one answer replace each other (running totals) or complete each other
(a first object with the input, a last one with the output); objects of different answers add up. Where two sources
speak about one answer, they must agree. Nothing is guessed: whoever needs a figure where this refuses one counts for
itself and says so (`settlement.meter.estimates`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from settlement.meter.dialects import (
    ANSWERS,
    EMBEDDINGS,
    HEADERS,
    KINDS,
    MAX_UNITS,
    PARTS,
    TREE,
    UNCHARGED_PLACES,
    Reading,
    Unreadable,
    counted,
    exact,
    read_usage,
    recognise,
    whole_input,
    whole_output,
)
from settlement.meter.exchanges import Exchange, UsageEvent

REFUSALS = {
    "error_answer": "the request failed; it costs nothing",
    "count_only": "a call that only counts tokens",
    "no_answer": "the recording holds no answer",
    "no_usage": "a whole answer without usage",
    "stream_without_usage": "a stream that ended without usage",
    "no_counts": "a usage object without any count above zero",
    "unknown_shape": "a usage object of no dialect we know",
    "zero_with_text": "an output of zero, and the answer has text",
    "meter_absent": "input or output is absent; absent is not zero",
    "split_unknown": "a total alone, for a call that has input and output",
    "total_mismatch": "the parts do not make the vendor's own total",
    "sources_disagree": "two places state different counts for one answer",
    "passes_mismatch": "the passes of an answer do not make its totals",
    "not_whole": "a count that is not a whole number",
    "negative_count": "a count below zero",
    "count_too_large": "a count above 10^12",
}
"""Every name that a refusal can have, with its meaning."""

FLAGS = {
    "subset_above_whole": "a part was above its whole; the part was cut to fit",
    "derived_from_total": "a count was absent and made from the vendor's total",
    "lower_bound": "the stream has no report behind its beginning: its output is the beginning's",
}
"""Every flag that exact meters can carry."""

_SUBTRACTED = {
    f"input_{kind}_tokens": (f"cache_{kind}_read_tokens", f"cache_{kind}_write_tokens", f"input_{kind}_tool_tokens")
    for kind in ("audio", "image", "video")
}
"""What genai-prices' lattice counts in two places and our tree in one (docs/reference/rates.md)."""


LOWER_BOUND = "lower_bound"
_STATED = ("input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Use:
    """What was used of one model; `model` None is the model of the answer."""

    model: str | None
    meters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Normal:
    """The outcome of one exchange: `uses` without a refusal, or a `refusal` without uses."""

    uses: tuple[Use, ...] = ()
    refusal: str | None = None
    flags: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    checked: bool = False
    """Whether every answer had a total of the vendor's own, and agrees with it."""

    @property
    def meters(self) -> Mapping[str, int]:
        """The meters of the answer's own model; empty after a refusal."""
        return self.uses[0].meters if self.uses else {}


def normalise(exchange: Exchange) -> Normal:
    """Exact meters of an exchange, or the name of the reason why there are none. Never raises."""
    if exchange.kind in KINDS["uncharged"] or any(event.place in UNCHARGED_PLACES for event in exchange.usage):
        return Normal(refusal="count_only")
    if exchange.status is not None and exchange.status >= 400:
        return Normal(refusal="error_answer")
    try:
        return _read(exchange, without_output=exchange.kind in KINDS["without_output"])
    except Unreadable as error:
        if error.reason == "meter_absent" and _wrote_nothing(exchange):
            exchange = replace(exchange, kind=EMBEDDINGS, output_chars=None)
            return normalise(exchange)
        return Normal(refusal=error.reason)


def _read(exchange: Exchange, *, without_output: bool) -> Normal:
    stated = [
        event
        for event in exchange.usage
        if event.usage and event.type not in ANSWERS["nothing"] and not any(part in event.place for part in PARTS)
    ]
    header = _from_headers(exchange.headers)
    answers = _answers(stated, each=exchange.kind in KINDS["each_event"])
    answers = [answer for answer in answers if any(counted(event.usage) for event in answer)] or answers[:1]
    if not answers:
        if header is None:
            raise Unreadable(_why_silent(exchange))
        return Normal((Use(None, _in_tree(header)[0]),))
    totals: dict[str | None, Counter[str]] = {None: Counter()}
    flags: list[str] = []
    unread: list[str] = []
    checked = True
    for answer in answers:
        reading, passes = _one(answer, header if len(answers) == 1 else None, without_output=without_output)
        checked = checked and reading.checked
        flags.extend([LOWER_BOUND] if _only_began(answer) else [])
        flags.extend(reading.flags)
        unread.extend(reading.unread)
        for model, values in [(None, reading.values), *passes]:
            meters, cut = _in_tree(values)
            flags.extend(["subset_above_whole"] if cut else [])
            totals.setdefault(model, Counter()).update(meters)
    if exchange.output_chars and totals[None].get("output_tokens") == 0:
        raise Unreadable("zero_with_text")
    if any(units > MAX_UNITS for meters in totals.values() for units in meters.values()):
        raise Unreadable("count_too_large")
    uses = tuple(Use(model, dict(meters)) for model, meters in totals.items())
    return Normal(uses, None, _unique(flags), tuple(unread), checked)


def _wrote_nothing(exchange: Exchange) -> bool:
    """Whether a recording shows that nothing was written: no text, and no reason why a text ended."""
    return exchange.output_chars == 0 and not (exchange.finish or exchange.streamed)


def _why_silent(exchange: Exchange) -> str:
    if exchange.failed:
        return "error_answer"
    if exchange.usage and not any(event.usage for event in exchange.usage):
        return "no_counts"
    if exchange.streamed:
        return "stream_without_usage"
    return "no_usage" if exchange.events else "no_answer"


def _answers(events: Sequence[UsageEvent], *, each: bool) -> list[list[UsageEvent]]:
    """The usage objects of each answer by itself: a stream or a socket can carry several, one behind the other."""
    answers: list[list[UsageEvent]] = []
    for event in events:
        if not answers or _begins(event, answers[-1], each=each):
            answers.append([])
        answers[-1].append(event)
    return answers


def _only_began(answer: Sequence[UsageEvent]) -> bool:
    """Whether output is stated by the event that begins an answer, and by none behind it."""
    begun = any(event.type in ANSWERS["begin"] for event in answer)
    return begun and not any(
        event.type not in ANSWERS["begin"] and whole_output(event.usage) is not None for event in answer
    )


def _begins(event: UsageEvent, current: Sequence[UsageEvent], *, each: bool) -> bool:
    last = current[-1]
    if event.event == last.event:
        return False
    if event.type in ANSWERS["each"] or last.type in ANSWERS["each"] or each:
        return True
    if event.type in ANSWERS["begin"]:
        # The same beginning twice is one answer whose first event was repeated.
        return not all(each.type in ANSWERS["begin"] and each.usage == event.usage for each in current)
    if event.answer is not None and last.answer is not None:
        return event.answer != last.answer
    dialect, before = recognise(event.usage), recognise(last.usage)
    if dialect is None or dialect is not before or dialect.running:
        return False
    then, now = whole_input(last.usage), whole_input(event.usage)
    output_then, output_now = whole_output(last.usage), whole_output(event.usage)
    fell = output_then is not None and output_now is not None and 0 < output_now < output_then
    # An input that is zero until its end is known is no other answer's.
    return (bool(then) and now is not None and now != then) or fell


def _one(
    answer: Sequence[UsageEvent], header: Mapping[str, int] | None, *, without_output: bool
) -> tuple[Reading, list[tuple[str | None, Mapping[str, int]]]]:
    """The reading of one answer from all that speaks about it, and its passes by other models."""
    sources: dict[str, Mapping[str, Any]] = {}
    place_of: dict[str, tuple[int, str]] = {}
    for event in answer:
        dialect = recognise(event.usage)
        family = dialect.family if dialect else ""
        taken = place_of.get(family)
        if taken is not None and taken[0] == event.event and taken[1] != event.place:
            if sources[family] != event.usage and dialect is not None:
                _agree(read_usage(sources[family]).values, read_usage(event.usage).values)
            continue
        usage = event.usage
        if dialect is not None and family in sources:
            if not counted(usage) and whole_input(usage) in (None, 0) and whole_output(usage) in (None, 0):
                continue  # zeros behind counts state nothing
            if dialect.merged:
                usage = _over(sources[family], usage)
            elif whole_output(sources[family]) and whole_output(usage) == 0:
                raise Unreadable("sources_disagree")
        sources[family] = usage
        place_of[family] = (event.event, event.place)
    readings, reason = [], "no_counts"
    for usage in sources.values():
        try:
            readings.append((read_usage(usage, without_output=without_output), usage))
        except Unreadable as error:
            reason = error.reason if not (readings or error.reason == "no_counts") else reason
            if error.reason not in ("meter_absent", "no_counts"):
                raise
    if not readings:
        dialect = recognise(answer[-1].usage)
        if header is None or dialect is None:
            raise Unreadable(reason)
        return Reading(dialect, dict(header)), []
    first, usage = readings[0]
    for other, _ in readings[1:]:
        _agree(first.values, other.values)
    if header is not None:
        _agree(first.values, header)
    return _with_passes(first, usage)


def _with_passes(
    reading: Reading, usage: Mapping[str, Any]
) -> tuple[Reading, list[tuple[str | None, Mapping[str, int]]]]:
    """Passes that an answer's totals leave out: its own model's are added, another model's stand by themselves."""
    passes = usage.get(reading.dialect.passes) if reading.dialect.passes else None
    passes = [each for each in passes or () if isinstance(each, Mapping)]
    if not passes:
        return reading, []
    by_type: dict[str, Counter[str]] = {}
    read = [(str(each.get("type")), each, read_usage(each)) for each in passes]
    for kind, _, values in read:
        by_type.setdefault(kind, Counter()).update(values.values)
    shared = [meter for meter in ("input_tokens", "output_tokens") if meter in reading.values]

    def makes(sums: Mapping[str, int]) -> bool:
        return all(sums.get(meter, 0) == reading.values[meter] for meter in shared)

    if makes(sum(by_type.values(), Counter())):
        return reading, []
    own = next((kind for kind, sums in by_type.items() if makes(sums)), None)
    if own is None:
        raise Unreadable("passes_mismatch")
    added = Counter(reading.values)
    others: list[tuple[str | None, Mapping[str, int]]] = []
    for kind, each, found in read:
        if kind == own or not found.values.get("output_tokens"):
            continue  # a pass that brought nothing out is a failed attempt and costs nothing
        model = each.get("model")
        if isinstance(model, str):
            others.append((model, found.values))
        else:
            added.update(found.values)
    return Reading(reading.dialect, dict(added), reading.flags, reading.unread, reading.checked), others


def _agree(one: Mapping[str, int], other: Mapping[str, int]) -> None:
    for meter in ("input_tokens", "output_tokens"):
        if meter in one and meter in other and one[meter] != other[meter]:
            raise Unreadable("sources_disagree")


def _over(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> Mapping[str, Any]:
    """The later object with what it leaves out. An input of zeros behind a count is left out as well."""
    dialect = recognise(later)
    output = dialect.wholes["output_tokens"] if dialect else ""
    silent = not whole_input(later) and not counted({name: value for name, value in later.items() if name != output})
    merged = dict(earlier)
    for name, value in later.items():
        before = merged.get(name)
        if value is None or (silent and name != output and counted({name: before})):
            continue
        nested = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[name] = {**(before or {}), **_stated(value)} if nested else value
    return merged


def _stated(members: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _from_headers(headers: Mapping[str, str]) -> dict[str, int] | None:
    """The counts of headers, when input and output are both there; an embedding has input alone."""
    given = {name: headers[header] for name, header in HEADERS.items() if headers.get(header, "").isdecimal()}
    if "input" not in given:
        return None
    read, written = exact(given.get("cache_read", "0")), exact(given.get("cache_write", "0"))
    values = {"input_tokens": exact(given["input"]) + read + written}
    if "output" in given:
        values["output_tokens"] = exact(given["output"])
    if read:
        values["cache_read_tokens"] = read
    if written:
        values["cache_write_tokens"] = written
    return values


def _in_tree(values: Mapping[str, int]) -> tuple[dict[str, int], bool]:
    """The meters of the registry's tree, and whether a part had to be cut because it was above its whole.

    What is zero is left out, but for input and output as a whole: there, zero is a statement.
    """
    found = {_renamed(meter): units for meter, units in values.items() if not _of_text(meter)}
    cut = False
    for meter, overlapping in _SUBTRACTED.items():
        if meter in found:
            rest = found[meter] - sum(found.get(other, 0) for other in overlapping)
            cut = cut or rest < 0
            found[meter] = max(rest, 0)
    for whole in dict.fromkeys(TREE.values()):
        room = found.get(whole, 0)
        for part in (part for part, above in TREE.items() if above == whole and part in found):
            cut = cut or found[part] > room
            found[part] = min(found[part], room)
            room -= found[part]
    return {
        meter: units for meter, units in found.items() if (units or meter in _STATED) and not _split_away(meter)
    }, cut


def _renamed(meter: str) -> str:
    return meter.removesuffix("_seconds") + "_ms" if meter.endswith("_seconds") else meter


def _of_text(meter: str) -> bool:
    """Text is what is left of a whole, so there is no meter for it."""
    return "_text_" in meter


def _split_away(meter: str) -> bool:
    """Cached writes, tool use and reasoning are not split by modality in the registry."""
    return (
        meter.startswith(("cache_", "input_", "output_"))
        and meter.endswith("_tokens")
        and not (meter in TREE or meter in TREE.values())
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
