"""The OpenAI SDK as its users write it; only `base_url` and the key are another's. Runs in an environment of its own.

python openai_calls.py BASE_URL KEY
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(base_url: str, key: str) -> dict[str, Any]:
    """Whole, streamed, stopped and refused calls, as a user sees them."""
    import openai

    client = openai.OpenAI(base_url=base_url, api_key=key, max_retries=0)
    words = [{"role": "user", "content": "say 7"}]
    whole = client.chat.completions.create(model="gpt-5", messages=words)
    plain = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(model="gpt-5", messages=words, stream=True)
    ]
    usage = None
    for chunk in client.chat.completions.create(
        model="gpt-5",
        messages=words,
        stream=True,
        stream_options={"include_usage": True},
    ):
        usage = chunk.usage or usage
    raw = client.chat.completions.with_raw_response.create(model="gpt-5", messages=words)
    cost = raw.headers.get("x-settlement-cost")
    try:
        openai.OpenAI(base_url=base_url, api_key="cu_nobody", max_retries=0).chat.completions.create(
            model="gpt-5",
            messages=words,
        )
        refused = ""
    except openai.APIStatusError as error:
        refused = f"{error.status_code} {error.code}"
    return {
        "whole": whole.choices[0].message.content,
        "usage": whole.usage.completion_tokens if whole.usage else None,
        "plain": "".join(plain),
        "streamed_usage": usage.completion_tokens if usage else None,
        "cost": cost,
        "refused": refused,
        "models": [model.id for model in client.models.list()],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
