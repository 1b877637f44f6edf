"""A body means one thing, or is refused with what is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from serving.http.json import NotStrictJson, parse

VALUES = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**53), 2**53)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_json_comes_out_as_the_standard_parser_reads_it(value: object) -> None:
    text = json.dumps(value)
    assert parse(text.encode(), depth=50) == json.loads(text)


@given(some.dictionaries(some.text(), VALUES, min_size=1, max_size=4), some.data())
def test_a_repeated_key_is_always_found(members: dict[str, object], data: some.DataObject) -> None:
    again = data.draw(some.sampled_from(sorted(members)))
    pairs = [*members.items(), (again, None)]
    body = (
        "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"
    )
    for where in (body, f'{{"records": [{body}]}}'):
        with pytest.raises(NotStrictJson, match="is there twice"):
            parse(where.encode(), depth=50)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"\xff\xfe{\x00", "not UTF-8: byte 0"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": Infinity}', "not JSON"),
        (b'{"a": -Infinity}', "not JSON"),
        (b'{"a": 1} {}', "not JSON: Extra data"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (b'{"a": 1, "\\u0061": 2}', "the key 'a' is there twice"),
        (b"[" * 9 + b"]" * 9, "deeper than 8"),
        (b'{"a":' * 9 + b"1" + b"}" * 9, "deeper than 8"),
        (b"[" * 1_000_000, "deeper than 8"),
        (b'{"a":' * 100_000, "deeper than 8"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(NotStrictJson, match=why):
        parse(body)


def test_eight_levels_are_read_and_the_example_is_what_it_was() -> None:
    assert parse(b"[" * 8 + b"]" * 8) == json.loads(b"[" * 8 + b"]" * 8)
    assert parse(json.dumps(dict(PORTFOLIO.example)).encode()) == PORTFOLIO.example
    assert parse(b'{"a": "x:y{[", "b": {"c": ":"}}') == {"a": "x:y{[", "b": {"c": ":"}}
