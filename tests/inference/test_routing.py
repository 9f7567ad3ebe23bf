"""Who answers: production, unless a canary's share includes this person."""

from dataclasses import dataclass

import pytest

from inference.routing import choose


@dataclass(frozen=True)
class Live:
    deployment_id: int
    role: str
    share: int = 100


def test_production_answers_everybody_when_it_is_alone():
    production = Live(1, "production")
    assert {choose([production], f"person {number}") for number in range(50)} == {production}


def test_a_canary_has_about_its_share_and_a_person_keeps_their_version():
    production, canary = Live(1, "production"), Live(2, "canary", 20)
    chosen = [choose([production, canary], f"person {number}") for number in range(5_000)]
    assert 0.17 < chosen.count(canary) / 5_000 < 0.23
    assert chosen == [choose([canary, production], f"person {number}") for number in range(5_000)]


def test_raising_a_share_moves_nobody_back():
    production = Live(1, "production")
    small, large = Live(2, "canary", 5), Live(2, "canary", 25)
    for number in range(2_000):
        if choose([production, small], str(number)) is small:
            assert choose([production, large], str(number)) is large


def test_a_shadow_never_answers():
    with pytest.raises(LookupError):
        choose([Live(3, "shadow")], "anybody")
