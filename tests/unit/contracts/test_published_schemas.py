"""The JSON Schemas in docs/schemas are those of the code, and say of the examples what the parser says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.makers import contract_examples

from edge_contracts.codec import plain
from edge_contracts.schemas import CONTRACTS, schema_text

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


@pytest.mark.parametrize("name", CONTRACTS)
def test_published_schema_is_the_generated_one(name: str) -> None:
    text = (SCHEMAS / f"{name}.schema.json").read_text()
    assert text == schema_text(name), "run: python -m edge_contracts.schemas docs/schemas"


def test_no_schema_is_left_over() -> None:
    assert {path.name for path in SCHEMAS.iterdir()} == {f"{name}.schema.json" for name in CONTRACTS}


@pytest.mark.parametrize("name", CONTRACTS)
def test_schema_is_itself_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


@pytest.mark.parametrize("name", CONTRACTS)
def test_example_validates(name: str) -> None:
    example = json.loads(json.dumps(plain(contract_examples.EXAMPLES[name])))
    validator(name).validate(example)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("manifest", "version", "1.2"),
        ("manifest", "name", "../har"),
        ("manifest", "name", "har\n"),
        ("channel", "percentage", 101),
        ("family", "revoked", ["abc"]),
        ("job", "limit_s", 0),
    ],
)
def test_schema_refuses_what_the_parser_refuses(name: str, field: str, value: Any) -> None:
    example: Any = json.loads(json.dumps(plain(contract_examples.EXAMPLES[name])))
    example[field] = value
    with pytest.raises(jsonschema.ValidationError):
        validator(name).validate(example)
