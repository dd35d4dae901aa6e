"""TOML from outside: what is refused before the parser sees it, and what is not mistaken for it."""

from __future__ import annotations

import pytest

from edge_contracts.errors import ContractError
from edge_contracts.limits import MAX_CONFIG_BYTES, MAX_NESTING
from edge_contracts.toml import decode_toml


def key(parts: int) -> str:
    return ".".join("a" for _ in range(parts))


def test_a_file_is_refused_from_one_byte_over_the_limit() -> None:
    filled = b"#" * MAX_CONFIG_BYTES
    assert decode_toml(filled, what="f.toml") == {}
    with pytest.raises(ContractError, match=f"{MAX_CONFIG_BYTES + 1} bytes, over the limit") as caught:
        decode_toml(filled + b"#", what="f.toml")
    assert caught.value.subject == "f.toml"


def test_a_key_of_too_many_parts_is_refused_before_it_costs_anything() -> None:
    assert decode_toml(f"{key(MAX_NESTING)} = 1".encode(), what="f.toml")
    for text in (f"{key(MAX_NESTING + 1)} = 1", f"[{key(MAX_NESTING + 1)}]", f'x = "a"\n{key(2 * MAX_NESTING)} = 1'):
        with pytest.raises(ContractError, match=f"a key of more than {MAX_NESTING} parts") as caught:
            decode_toml(text.encode(), what="f.toml")
        assert caught.value.subject == "f.toml"


@pytest.mark.parametrize(
    "text",
    [
        "a = [" + ", ".join(["1.5"] * 200) + "]",  # the dots of numbers belong to no key
        "\n".join(f"a{number}.b = 1.5" for number in range(200)),
        'a = "' + "." * 200 + '"',
        "a = '" + "." * 200 + "'",
        'a = """' + "." * 200 + '"""',
        "a = '''" + "." * 200 + "'''",
        "# " + "." * 200,
        'a = "\\"' + "." * 200 + '"',
        'a = "#" # ' + "." * 200,
    ],
)
def test_dots_that_belong_to_no_key_are_not_counted(text: str) -> None:
    assert isinstance(decode_toml(text.encode(), what="f.toml"), dict)


@pytest.mark.parametrize("data", [b"a = ", b"\xff", b"a = 1\na = 2", b"a = " + b"[" * 5000, b"a = 1" + b"0" * 5000])
def test_what_is_no_toml_is_one_typed_error(data: bytes) -> None:
    with pytest.raises(ContractError, match="invalid TOML") as caught:
        decode_toml(data, what="f.toml")
    assert caught.value.subject == "f.toml"


def test_values_come_through_as_written() -> None:
    assert decode_toml(b'[a.b]\nc = "x"\nd = [1, 2.5]\n', what="f.toml") == {"a": {"b": {"c": "x", "d": [1, 2.5]}}}
