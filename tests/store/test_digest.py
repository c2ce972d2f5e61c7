"""Specs as data: strict conversion, canonical JSON, digests."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import pytest

from store.digest import Checked, canonical_json, digest, from_dict, setting, to_plain
from store.errors import SpecError


@dataclass(frozen=True)
class Inner(Checked):
    rate: float = setting(1.0, "a rate")
    sizes: tuple[int, ...] = setting((1, 2), "sizes")


@dataclass(frozen=True)
class Outer(Checked):
    name: str = setting("x", "a name")
    kind: Literal["a", "b"] = setting("a", "a kind")
    flag: bool = setting(False, "a flag")
    limit: int | None = setting(None, "a limit")
    inner: Inner = field(default_factory=Inner)
    extra: dict[str, float] = field(default_factory=dict)


def test_canonical_json_and_digest_are_those_of_the_definition() -> None:
    text = '{"extra":{},"flag":false,"inner":{"rate":2.0,"sizes":[1,2]},"kind":"a","limit":null,"name":"é"}'
    spec = Outer(name="é", inner=Inner(rate=2))
    assert canonical_json(spec) == text
    assert digest(spec) == hashlib.sha256(text.encode()).hexdigest()


def test_equal_specs_have_one_digest_however_they_were_written() -> None:
    assert digest(Outer(inner=Inner(rate=3, sizes=[4]))) == digest(from_dict(Outer, {"inner": {"rate": 3.0, "sizes": (4,)}}))  # type: ignore[arg-type]


def test_every_setting_is_in_the_digest() -> None:
    variants = [Outer(), Outer(name="y"), Outer(kind="b"), Outer(flag=True), Outer(limit=0), Outer(inner=Inner(2.0)), Outer(extra={"k": 1})]
    assert len({digest(variant) for variant in variants}) == len(variants)


def test_round_trip_through_plain_data() -> None:
    spec = Outer(limit=3, inner=Inner(0.5, (7,)), extra={"k": 2.0})
    assert from_dict(Outer, to_plain(spec)) == spec


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"nam": "y"}, "no setting 'nam'; did you mean 'name'"),
        ({"inner": {"zzzzz": 1}}, r"no setting 'inner.zzzzz'; known: rate, sizes"),
        ({"kind": "c"}, "kind is 'c'; it must be one of 'a', 'b'"),
        ({"flag": 1}, "flag is 1; it must be true or false"),
        ({"limit": 1.5}, "limit is 1.5; it must be a whole number"),
        ({"limit": True}, "limit is True; it must be a whole number"),
        ({"inner": 3}, "inner is 3; it must be a table"),
        ({"inner": {"rate": float("nan")}}, "inner.rate is nan; it must be a finite number"),
        ({"inner": {"sizes": 3}}, "inner.sizes is 3; it must be a list"),
        ({"extra": {"k": "v"}}, "extra.k is 'v'; it must be a finite number"),
        ({"name": 3}, "name is 3; it must be text"),
    ],
)
def test_wrong_data_is_named(data: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        from_dict(Outer, data)
