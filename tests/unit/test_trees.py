from __future__ import annotations

import numpy as np
import pytest

from metier.trees import Block, Example, joined, pack, padded


def row(*tokens: int) -> Example:
    return Example(tokens, (0.0, *[1.0] * (len(tokens) - 1)))


def test_shared_prefixes_are_found_and_stored_once() -> None:
    (tree,) = pack([row(1, 2, 3), row(1, 2, 4), row(9, 8)], 100)
    assert tree.tokens.tolist() == [1, 2, 3, 4, 9, 8]
    assert tree.positions.tolist() == [0, 1, 2, 2, 0, 1]
    assert tree.blocks == (Block(0, 4, True), Block(4, 6, False))
    assert sorted(zip(tree.query.tolist(), tree.token.tolist(), strict=True)) == [(0, 2), (1, 3), (1, 4), (4, 8)]


def test_a_fork_predicts_several_tokens_from_one_position() -> None:
    (tree,) = pack([row(1, 2), row(1, 3), row(1, 4)], 100)
    assert tree.query.tolist() == [0, 0, 0]
    assert tree.token.tolist() == [2, 3, 4]


def test_weights_of_equal_targets_add_up_and_rows_keep_their_own() -> None:
    (tree,) = pack([Example((1, 2, 3), (0, 1, 1)), Example((1, 2, 4), (0, 0.5, 0))], 100)
    assert dict(zip(tree.token.tolist(), tree.weight.tolist(), strict=True)) == {2: 1.5, 3: 1.0}
    sums = dict(zip(tree.rows.tolist(), tree.row_sums(np.ones(len(tree.query))).tolist(), strict=True))
    assert sums == {0: 2.0, 1: 0.5}


def test_a_row_that_is_the_beginning_of_another_adds_nothing() -> None:
    (tree,) = pack([row(1, 2, 3, 4), row(1, 2)], 100, fork=False)
    assert len(tree) == 4
    assert not tree.blocks[0].forks


def test_without_forks_only_whole_rows_are_shared() -> None:
    trees = pack([row(1, 2, 3), row(1, 2, 4)], 100, fork=False)
    assert [block.forks for tree in trees for block in tree.blocks] == [False, False]
    assert sum(map(len, trees)) == 6


@pytest.mark.parametrize("budget", [1, 3, 4, 7, 100])
def test_no_tree_is_longer_than_the_budget_unless_one_row_is(budget: int) -> None:
    rows = [row(1, 2, 3), row(1, 2, 4), row(1, 5), row(6, 7, 8, 9)]
    trees = pack(rows, budget)
    assert sorted(index for tree in trees for index in tree.rows.tolist()) == [0, 1, 2, 3]
    assert all(len(tree) <= budget or len(tree.rows) == 1 for tree in trees)


def test_rows_on_two_sides_of_a_boundary_never_meet() -> None:
    trees = pack([row(1, 2), row(1, 2, 3, 4, 5)], 100, boundary=3)
    assert [len(tree) for tree in trees] == [2, 5]


def test_padding_is_a_root_of_its_own_that_nobody_asks_about() -> None:
    (tree,) = pack([row(1, 2, 3)], 100)
    filled = padded(tree, 8)
    assert len(filled) == 8
    assert filled.blocks == (Block(0, 3, False), Block(3, 8, False))
    assert filled.query.tolist() == tree.query.tolist()
    assert padded(filled, 8) is filled


@pytest.mark.parametrize(("tokens", "weights"), [((), ()), ((1,), (1.0,)), ((1, 2), (0.0,))])
def test_impossible_examples_are_refused(tokens: tuple[int, ...], weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="example"):
        Example(tokens, weights)


def test_rows_without_targets_are_only_read() -> None:
    (tree,) = pack([Example((1, 2), (0, 0)), Example((1, 3), (0, 0))], 100)
    assert len(tree.query) == 0
    assert tree.row_sums(np.zeros(0)).tolist() == [0.0, 0.0]
    assert [tree.tokens[tree.path(place)].tolist() for place in (0, 1)] == [[1, 2], [1, 3]]


def test_trees_side_by_side_are_what_each_was() -> None:
    groups = [[row(1, 2, 3), Example((1, 2, 4), (0, 0.5, 2))], [row(1, 2, 4, 5), row(7, 8)], [row(1, 2, 3)]]
    trees = [pack(group, 100)[0] for group in groups]
    both, rows = joined(trees), [each for group in groups for each in group]
    assert both.rows.tolist() == [0, 1, 2, 3, 4]
    assert [tuple(both.tokens[both.path(place)].tolist()) for place in range(5)] == [each.tokens for each in rows]
    assert both.positions.tolist() == [place for tree in trees for place in tree.positions.tolist()]
    assert both.tokens[both.branch].tolist() == both.token.tolist()
    assert all(both.path(place)[-2] in both.query for place in range(5))
    assert [(block.start, block.forks) for block in both.blocks] == [(0, True), (4, False), (8, False), (10, False)]
    values = np.random.default_rng(1).normal(size=len(both.query))
    parts = np.split(values, np.cumsum([len(tree.query) for tree in trees])[:-1])
    alone = [sums for tree, part in zip(trees, parts, strict=True) for sums in tree.row_sums(part).tolist()]
    assert both.row_sums(values).tolist() == pytest.approx(alone)
