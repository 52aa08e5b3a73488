from __future__ import annotations

import pytest

from metier.data.times import moments


def test_moments_sort_as_the_texts_mean() -> None:
    assert moments(["10", "9"]) == [10.0, 9.0]
    early, late = moments(["2026-01-01T10:00:00Z", "2026-01-01T10:00:00-01:00"]) or ()
    assert float(late) - float(early) == 3600
    assert moments(["b", "a"]) == ["b", "a"]
    assert moments(["2026-01-01 10:00:00 UTC"]) is not None
    for texts in (
        ["1", "b"],
        ["1/2/2026", "3/4/2026"],
        ["31.1.2026", "1/2/2026"],
        ["31/1/2026", "1/31/2026"],
        ["Jan 31", "Feb 1"],
        ["9:58", "10:05"],
        ["", "1"],
    ):
        assert moments(texts) is None


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("31.12.2025 23:10", "01.01.2026 00:05"),
        ("1.2.2026", "2.1.2027"),
        ("13/1/2026 9:58", "2/2/2026 9:58"),
        ("1/31/2026, 11:58 am", "1/31/2026, 12:05 PM"),
    ],
)
def test_local_dates_that_leave_no_doubt_are_read(early: str, late: str) -> None:
    first, second = moments([early, late]) or ()
    assert float(first) < float(second)
