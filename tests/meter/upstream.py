"""A small model server for tests: it really streams over HTTP, and can stall, be cut, leave usage out, and lie.

It speaks the chat interface that most clients speak. What it does is chosen by words in the last message, so that it
needs no other control: ``say 40`` makes forty tokens, ``stall 10`` stops for ever after ten, ``cut 10`` drops the
connection there, ``silent`` leaves usage out even when it was asked for, ``lie 9`` multiplies the output it states,
``fail 503`` answers with that status, ``pause 5`` waits so many milliseconds between two tokens, ``running`` states
usage in every chunk, ``packed`` compresses a whole answer whatever was asked for, ``strange`` by a coding of nobody.
A client that takes gzip gets it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any

WORD = " token"
"""What each token says: six bytes."""


@dataclass
class Plan:
    """What one request asks for."""

    say: int = 20
    stall: int | None = None
    cut: int | None = None
    lie: int = 1
    fail: int | None = None
    pause: int = 0
    flags: set[str] = field(default_factory=set)


def plan_of(text: str) -> Plan:
    """The plan in a message's words."""
    plan = Plan(flags=set(re.findall(r"[a-z]+", text)))
    for name, value in re.findall(r"(say|stall|cut|lie|fail|pause) (\d+)", text):
        setattr(plan, name, int(value))
    return plan


class Upstream:
    """The server. `seen` are the bodies that it got, `headers` those that came with the last one."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.spoken = 0
        self.gone = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self, port: int = 0) -> str:
        """Listen on loopback; returns the address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self.url

    async def stop(self) -> None:
        """Stop listening, and drop who is still connected."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(self.headers.get("content-length", "0")))
        if method == "GET":
            await self._whole(writer, 200, {"object": "list", "data": [{"id": "gpt-5"}]})
            return True
        if path.endswith("/audio/transcriptions"):
            self.seen.append({"content-type": self.headers["content-type"], "body": body})
            details = {"text_tokens": 0, "audio_tokens": 14}
            if b"\r\n\r\ntext\r\n" in body:
                await self._whole(writer, 200, WORD * 30)
                return True
            usage = {"type": "tokens", "input_tokens": 14, "input_token_details": details, "output_tokens": 3}
            await self._whole(writer, 200, {"text": WORD * 3, "usage": {**usage, "total_tokens": 17}})
            return True
        request = json.loads(body)
        self.seen.append(request)
        if path.endswith("/embeddings"):
            usage = {"prompt_tokens": 7, "total_tokens": 7}
            await self._whole(writer, 200, {"object": "list", "data": [{"embedding": [0.5]}], "usage": usage})
            return True
        plan = plan_of(str(request["messages"][-1]["content"]))
        if plan.fail:
            await self._whole(writer, plan.fail, {"error": {"message": "no", "code": "broken"}})
            return True
        if request.get("stream"):
            return await self._stream(reader, writer, request, plan)
        text = WORD * plan.say
        message = {"role": "assistant", "content": text}
        coding = "gzip" if "packed" in plan.flags or "gzip" in self.headers.get("accept-encoding", "") else ""
        coding = "strange" if "strange" in plan.flags else coding
        answer = self._base(request, "chat.completion") | {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        if "silent" not in plan.flags:
            answer["usage"] = self._usage(request, plan.say, plan)
        await self._whole(writer, 200, answer, coding)
        return True

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: dict[str, Any], plan: Plan
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        base = self._base(request, "chat.completion.chunk")
        asked = (request.get("stream_options") or {}).get("include_usage") is True
        for number in range(plan.say):
            if number == plan.cut:
                writer.transport.abort()
                return False
            if number == plan.stall:
                await writer.drain()
                await reader.read()  # until the client has left
                raise ConnectionResetError
            delta = {"content": WORD} if number else {"role": "assistant", "content": WORD}
            chunk = base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            if "running" in plan.flags:
                chunk["usage"] = self._usage(request, number + 1, plan)
            await self._event(writer, json.dumps(chunk))
            self.spoken += 1
            if plan.pause:
                await asyncio.sleep(plan.pause / 1000)
        last = base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        await self._event(writer, json.dumps(last))
        if asked and "silent" not in plan.flags:
            await self._event(writer, json.dumps(base | {"choices": [], "usage": self._usage(request, plan.say, plan)}))
        await self._event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _base(self, request: dict[str, Any], kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{len(self.seen)}", "object": kind, "created": 1763769600, "model": request["model"]}

    def _usage(self, request: dict[str, Any], output: int, plan: Plan) -> dict[str, int]:
        given = sum(len(str(message["content"])) // 4 + 4 for message in request["messages"])
        return {
            "prompt_tokens": given,
            "completion_tokens": output * plan.lie,
            "total_tokens": given + output * plan.lie,
        }

    async def _event(self, writer: asyncio.StreamWriter, data: str) -> None:
        raw = f"data: {data}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        await writer.drain()

    async def _whole(
        self, writer: asyncio.StreamWriter, status: int, document: dict[str, Any] | str, coding: str = ""
    ) -> None:
        body = (document if isinstance(document, str) else json.dumps(document)).encode()
        body = gzip.compress(body) if coding else body
        kind = "text/plain; charset=utf-8" if isinstance(document, str) else "application/json"
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        head += f"content-encoding: {coding}\r\n\r\n" if coding else "\r\n"
        writer.write(head.encode() + body)
        await writer.drain()


async def _main() -> None:
    server = Upstream()
    print(await server.start(int(sys.argv[1]) if len(sys.argv) > 1 else 0), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
