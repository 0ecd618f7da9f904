"""The seed registry of meters, and what the price keys of the catalogues mean in it.

Names and inclusion are those of the genai-prices unit registry. There a unit may lie in two wholes (cached audio is
cached input and audio input); a rate table needs a strict tree, in which siblings never count the same token twice.
The choice made here: the cache comes first. Cached audio, image and video tokens lie below ``cache_read_tokens``, and
``input_audio_tokens`` and its like count what was not read from the cache, written to it or brought by a tool. Text is
what is left of a whole, so it has no meter. Units of text models only; a new meter is a new table version, not code.
"""

from __future__ import annotations

from types import MappingProxyType

METERS = MappingProxyType(
    {
        "input_tokens": (None, "token"),
        "cache_read_tokens": ("input_tokens", "token"),
        "cache_audio_read_tokens": ("cache_read_tokens", "token"),
        "cache_image_read_tokens": ("cache_read_tokens", "token"),
        "cache_video_read_tokens": ("cache_read_tokens", "token"),
        "cache_write_tokens": ("input_tokens", "token"),
        "cache_write_5m_tokens": ("cache_write_tokens", "token"),
        "cache_write_1h_tokens": ("cache_write_tokens", "token"),
        "input_audio_tokens": ("input_tokens", "token"),
        "input_image_tokens": ("input_tokens", "token"),
        "input_video_tokens": ("input_tokens", "token"),
        "input_tool_tokens": ("input_tokens", "token"),
        "output_tokens": (None, "token"),
        "output_reasoning_tokens": ("output_tokens", "token"),
        "output_citation_tokens": ("output_tokens", "token"),
        "output_audio_tokens": ("output_tokens", "token"),
        "output_image_tokens": ("output_tokens", "token"),
        "output_video_tokens": ("output_tokens", "token"),
        "input_document_pages": (None, "page"),
        "input_annotated_document_pages": ("input_document_pages", "page"),
        "rerank_searches": (None, "search"),
        "web_searches": (None, "search"),
        "social_searches": (None, "search"),
        "storage_searches": (None, "search"),
        "code_executions": (None, "execution"),
        "requests": (None, "request"),
    }
)
"""Meter: (parent, unit)."""

MILLION = 10**6

PRICE_KEYS = MappingProxyType(
    {name.removesuffix("_tokens") + "_mtok": (name, MILLION) for name, (_, unit) in METERS.items() if unit == "token"}
    | {
        "input_document_kpages": ("input_document_pages", 1000),
        "input_annotated_document_kpages": ("input_annotated_document_pages", 1000),
        "rerank_searches_kcount": ("rerank_searches", 1000),
        "web_searches_kcount": ("web_searches", 1000),
        "social_searches_kcount": ("social_searches", 1000),
        "storage_searches_kcount": ("storage_searches", 1000),
        "code_executions_kcount": ("code_executions", 1000),
        "requests_kcount": ("requests", 1000),
    }
)
"""genai-prices price key: (meter, units that the price is for)."""

_FLAT = "text_tokens.standard.{}_per_million"
_LONG = "text_tokens.long_context.{}_per_million"
_TEXT = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read_input": "cache_read_tokens",
    "cache_write_input": "cache_write_tokens",
    "reasoning_output": "output_reasoning_tokens",
}

CSV_FIELDS = MappingProxyType(
    {name: name for name in METERS}
    | {key: name for key, (name, per) in PRICE_KEYS.items() if per == MILLION}
    | {_FLAT.format(field): name for field, name in _TEXT.items()}
    | {
        "audio_tokens.standard.input_per_million": "input_audio_tokens",
        "audio_tokens.standard.output_per_million": "output_audio_tokens",
        "images.standard.input_per_million": "input_image_tokens",
        "images.standard.output_per_million": "output_image_tokens",
        "images.standard.cache_read_input_per_million": "cache_image_read_tokens",
    }
)
"""Field of a price CSV: meter."""

CSV_LONG_FIELDS = MappingProxyType({_LONG.format(field): name for field, name in _TEXT.items()})
"""Field of a price CSV that holds above the long-context threshold: meter."""

CSV_LONG_THRESHOLD = "text_tokens.long_context_threshold"
