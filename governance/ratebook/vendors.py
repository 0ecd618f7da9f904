"""What kind of seller a catalogue's vendor is, because the market method takes a median over hosts.

A host runs the model itself or by contract with its maker. A reseller passes calls on to somebody's API at a price of
its own, which says nothing about the effort and could be set to move a rate, so it is compared and never counted. A
vendor that nobody has classified yet sets a price only for the models that no host lists.
"""

from __future__ import annotations

from types import MappingProxyType

HOSTS = frozenset(
    {
        "alibaba", "anthropic", "arcee", "avian", "aws", "azure", "baseten", "cerebras", "cloudflare", "cohere",
        "databricks", "deepseek", "doubleword", "fireworks", "google", "groq", "hyperbolic",
        "meta", "minimax", "mistral", "modal", "moonshotai", "nebius", "novita", "nscale", "openai", "ovhcloud",
        "perplexity", "sambanova", "together", "vertexai", "voyageai", "x-ai", "zai", "zhipuai",
    }
)  # fmt: skip

RESELLERS = frozenset({"cursor", "github-copilot", "openrouter", "quicksilverpro"})
RESELLER_PREFIX = "huggingface"

NAMES = MappingProxyType(
    {
        "azure_ai": "azure", "bedrock": "aws", "bedrock_converse": "aws", "cohere_chat": "cohere",
        "dashscope": "alibaba", "fireworks_ai": "fireworks", "gemini": "google", "moonshot": "moonshotai",
        "text-completion-openai": "openai", "together_ai": "together", "vertex_ai": "vertexai", "xai": "x-ai",
    }
)  # fmt: skip
"""Vendors that catalogues call by another name: under two names a host would count twice and agree with itself."""


def rank(vendor: str) -> int | None:
    """0 for a host, 1 for a vendor that is not classified, None for a reseller."""
    if vendor in RESELLERS or vendor.startswith(RESELLER_PREFIX):
        return None
    return 0 if vendor in HOSTS else 1
