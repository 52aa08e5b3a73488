from __future__ import annotations

from metier.evaluation.answers import Answer
from metier.report.choice import choose

Key = tuple[str, str]


def answer(number: int, right: bool, domain: str = "bank") -> Answer:
    output = "yes" if right else "no"
    kind = {"kind": "label", "labels": ("yes", "no"), "prompt": "?", "reference": "yes", "place": f"f:{number}"}
    return Answer(id=f"{number}", domain=domain, group=f"{number}", output=output, **kind)  # type: ignore[arg-type]


def keyed(answers: list[Answer]) -> dict[Key, Answer]:
    return {(each.domain, each.id): each for each in answers}


def ids(answers: list[Answer]) -> set[str]:
    return {each.id for each in answers}


def test_the_items_lost_and_won_are_found_and_none_is_taken_twice() -> None:
    ours = [answer(number, number >= 7) for number in range(60)]
    theirs = [answer(number, number < 54) for number in range(60)]  # 0 … 6 lost, 54 … 59 won
    behind, ahead, drawn = choose(ours, keyed(theirs), seed=1)
    assert ids(behind) == {str(number) for number in range(7)}
    assert ids(ahead) == {str(number) for number in range(54, 60)}
    assert len(ids(behind) | ids(ahead) | ids(drawn)) == 20


def test_where_nobody_else_answered_our_own_merit_decides() -> None:
    behind, ahead, _ = choose([answer(number, number >= 7) for number in range(40)], None, seed=1)
    assert ids(behind) == {str(number) for number in range(7)}
    assert all(each.output == "yes" for each in ahead)


def test_an_equal_gain_is_ordered_by_our_own_merit() -> None:
    ours = [answer(number, number >= 7) for number in range(40)]
    behind, ahead, _ = choose(ours, keyed(ours), seed=1)
    assert ids(behind) == {str(number) for number in range(7)}
    assert all(each.output == "yes" for each in ahead)


def test_domains_take_turns() -> None:
    ours = [answer(number, False, domain) for domain in ("a", "b", "c") for number in range(20)]
    behind, ahead, _ = choose(ours, None, seed=1)
    for group in (behind, ahead):
        assert {each.domain for each in group} == {"a", "b", "c"}


def test_the_seed_alone_decides_what_is_drawn() -> None:
    ours = [answer(number, True) for number in range(100)]
    assert choose(ours, None, seed=1) == choose(ours, None, seed=1)
    assert choose(ours, None, seed=1)[2] != choose(ours, None, seed=2)[2]


def test_fewer_items_than_places() -> None:
    behind, ahead, drawn = choose([answer(number, True) for number in range(9)], None, seed=1)
    assert (len(behind), len(ahead), len(drawn)) == (7, 2, 0)
