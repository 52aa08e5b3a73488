from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from metier.data.delimited import guess_delimiter, records, split_lines

CELLS = st.text(st.sampled_from('ab ,;|"\n\r\té€'), max_size=6)
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=6)
)


@given(TABLES, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n"]))
def test_records_are_what_the_csv_module_wrote(table: list[list[str]], delimiter: str, end: str) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(table)
    assert [list(each.cells) for each in records(file.getvalue(), delimiter)] == table


@given(TABLES)
def test_a_record_begins_on_its_line_whatever_its_cells_contain(table: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    begins = []
    for row in table:
        begins.append(1 + sum(1 for line in io.StringIO(file.getvalue(), newline="") if line[-1] in "\r\n"))
        writer.writerow(row)
    assert [each.line for each in records(file.getvalue(), ",")] == begins


def test_a_delimiter_may_be_several_characters() -> None:
    assert [list(each.cells) for each in records('a||b\n"x||y"||1|2', "||")] == [["a", "b"], ["x||y", "1|2"]]


def test_the_last_cell_may_be_empty() -> None:
    assert [list(each.cells) for each in records("a,\n,", ",")] == [["a", ""], ["", ""]]


def test_a_quote_that_is_never_closed_is_reported_where_its_record_begins() -> None:
    good, bad = records('a,b\nx,"open\nfoo,bar\n', ",")
    assert list(good.cells) == ["a", "b"]
    assert (bad.line, list(bad.cells)) == (2, ["x"])
    assert "never closed" in bad.problem


def test_text_behind_a_quote_spoils_its_line_only() -> None:
    found = list(records('a,b\n"Great" film,1\nfine,2\n', ","))
    assert [each.line for each in found] == [1, 2, 3]
    assert "behind a closing quote" in found[1].problem
    assert list(found[2].cells) == ["fine", "2"]


def test_a_quote_within_a_bare_cell_is_text() -> None:
    assert [list(each.cells) for each in records('5" pipe,1', ",")] == [['5" pipe', "1"]]


def test_lines_are_split_from_the_right() -> None:
    assert [list(each.cells) for each in split_lines('me@home "now@neutral\r\n', "@", 2)] == [
        ['me@home "now', "neutral"]
    ]


def test_delimiters_are_guessed() -> None:
    assert guess_delimiter("text;label\nfirst, second; third\n") == ";"
    assert guess_delimiter('text,label\n"a;b;c",x\nd,y\n') == ","
    assert guess_delimiter("a, b\tlabel\nx\ty\n1, 2, 3\tz\n") == "\t"
    assert guess_delimiter("some text | more\tx\nother\ty\n", width=2) == "\t"
    assert guess_delimiter("single\ncolumn\n") == ","
