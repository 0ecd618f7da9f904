"""The OpenAPI document: complete, with an example for whatever is sent and answered, and one schema for all errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI

from settlement.api.problems import ProblemDocument


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def _example(document: dict[str, Any], content: dict[str, Any]) -> Any:
    schema = content.get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return content.get("example", schema.get("example"))


async def test_it_is_served(app: FastAPI, client: Any) -> None:
    assert (await client.get("/openapi.json")).json() == app.openapi()


async def test_every_operation_is_named_and_explained(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in _operations(document)]
    assert len(names) == len(set(names)) > 20
    for where, operation in _operations(document):
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where


async def test_every_answer_and_body_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    for where, operation in _operations(document):
        contents = list(operation.get("requestBody", {}).get("content", {}).values())
        for status, answer in operation["responses"].items():
            if status not in ("204", "304"):
                contents += answer["content"].values()
        assert contents, where
        for content in contents:
            example = _example(document, content)
            assert example is not None, where
            schema = {**content.get("schema", {}), "components": document["components"]}
            jsonschema.Draft202012Validator(schema).validate(example)


async def test_all_errors_have_one_schema(document: dict[str, Any]) -> None:
    for where, operation in _operations(document):
        content = operation["responses"]["default"]["content"]
        assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}, where
        assert not {"422", "400"} & operation["responses"].keys(), where
    assert document["components"]["schemas"]["Problem"]["required"] == [
        name for name in ProblemDocument.model_fields if name not in ("errors", "missing")
    ]
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_who_may_call_is_stated(document: dict[str, Any]) -> None:
    assert set(document["components"]["securitySchemes"]) == {"apiKey", "jws"}
    open_to_all = {where for where, operation in _operations(document) if not operation.get("security")}
    assert all(where.startswith("GET ") for where in open_to_all)
    assert {"GET /v1/windows", "GET /v1/checkpoints/{n}", "GET /healthz"} <= open_to_all
    assert not {where for where in open_to_all if where.endswith("/me") or "-keys" in where or "/keys" in where}
