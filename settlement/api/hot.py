"""Hot routes: answered in front of the framework, whose stack costs more than they do (decision 14).

Holds and usage reports are the service's traffic. They have a guard of their own, the same as all other routes; the
OpenAPI document describes them by the framework's routes of the same paths.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Receiving = Callable[[Request], Awaitable[Response]]
Wrapping = Callable[[ASGIApp], ASGIApp]


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A POST to a path; the groups of `path` are the request's path parameters."""

    path: re.Pattern[str]
    receive: Receiving


class Application(FastAPI):
    """FastAPI behind hot routes. `guarded` puts the guard around what it is given."""

    def __init__(self, *, hot: Sequence[HotRoute], guarded: Wrapping, **options: Any) -> None:
        super().__init__(**options)
        self._hot = [(route.path, guarded(_answering(route.receive))) for route in hot]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a hot route, or hand on."""
        if scope["type"] == "http" and scope["method"] == "POST":
            for path, answer in self._hot:
                found = path.fullmatch(scope["path"])
                if found is not None:
                    scope["app"], scope["path_params"] = self, found.groupdict()
                    await answer(scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


def _answering(act: Receiving) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await act(Request(scope, receive, send))
        await response(scope, receive, send)

    return answer
