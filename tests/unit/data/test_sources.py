from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metier.data.dataset import load
from metier.data.sources import Row, of_rows, read_rows, show
from metier.domain import Domain
from metier.errors import DataError, Fault
from metier.recipe import SAMPLES, Recipe


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def domain(**keys: Any) -> Domain:
    return Domain(name="d", data="x", **keys)


def read(name: str, content: str | bytes, **keys: Any) -> list[Row]:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_rows(domain(**keys), Path(name))


def faults(name: str, content: str | bytes, **keys: Any) -> list[str]:
    with pytest.raises(DataError) as raised:
        read(name, content, **keys)
    return [str(fault) for fault in raised.value.faults]


BROKEN = [
    ("x.csv", "text,label\nhi,a\nalone\nyou,b\n", 3, 2),
    ("x.csv", 'text,label\nhi,a\n"x" y,a\nyou,b\n', 3, 2),
    ("x.csv", f"text,label\nhi,a\n{'x' * 100_001},a\nyou,b\n", 3, 2),
    ("x.csv", "text,label\nhi,a\nhi\0,a\nyou,b\nwe,c\n", 3, 3),
    ("x.jsonl", '{"a": 1}\n{"a": \n{"a": 3}\n', 2, 2),
    ("x.jsonl", '{"a": 1}\n{"a": "\\ud800"}\n{"a": 3}\n', 2, 2),
    ("x.json", '[{"a": 1},\n 2,\n {"a": 3}]', 2, 2),
]


@pytest.mark.parametrize(("name", "content", "line", "left"), BROKEN)
def test_a_row_that_cannot_be_read_can_be_left_out(name: str, content: str, line: int, left: int) -> None:
    with pytest.raises(DataError) as raised:
        read(name, content)
    assert "skip_faulty" in raised.value.hint
    found: list[Fault] = []
    kept = read_rows(domain(), Path(name), found)
    assert (len(kept), [row.number for row in kept]) == (left, list(range(left)))
    assert {fault.place.split(": ")[0] for fault in found} == {f"{name}:{line}"}
    assert of_rows(found)


WHOLE = [
    ("x.csv", 'text,label\nhi,a\n"x,a\nyou,b\n'),
    ("x.csv", "text,la\0bel\nhi,a\nyou,b\nwe,b\n"),
    ("x.json", '[{"a": 1},\n {"a": \n {"a": 3}]'),
]


@pytest.mark.parametrize(("name", "content"), WHOLE)
def test_what_hides_the_rest_of_a_file_is_no_rows_fault(name: str, content: str) -> None:
    with pytest.raises(DataError) as raised:
        read(name, content)
    assert raised.value.hint == ""
    assert not of_rows(raised.value.faults)


@pytest.mark.parametrize(("name", "content", "line", "left"), BROKEN[:2])
def test_what_is_left_out_is_told_by_the_recipe_too(name: str, content: str, line: int, left: int) -> None:
    del line, left
    Path(name).write_text(content + "".join(f"number {n},{'ab'[n % 2]}\n" for n in range(40)))
    raw = {"model": "nano", "domain": [{"name": "d", "data": name, "prompt": "{text}", "answer": "{label}"}]}
    with pytest.raises(DataError, match=r"x\.csv:3"):
        load(Recipe.of(raw, Path("recipe.toml")))
    raw["domain"][0]["skip_faulty"] = True  # type: ignore[index]
    data = load(Recipe.of(raw, Path("recipe.toml")))
    assert "1 row like x.csv:3" in str(data.notes[0])
    assert str(data.notes[0]).endswith("left out (skip_faulty)")


def test_rows_know_the_line_on_which_they_begin() -> None:
    rows = read("x.csv", 'text,label\n"two\nlines",a\n\nthird,b\n')
    assert [(row.place, row.number, row.values) for row in rows] == [
        ("x.csv:2", 0, {"text": "two\nlines", "label": "a"}),
        ("x.csv:5", 1, {"text": "third", "label": "b"}),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "text,label\nhi,a\n",
        "\ufefftext;label\nhi;a",
        "text\tlabel\r\nhi\ta\r\n",
        "text|label\rhi|a\r",
        " text ,label \nhi,a",
    ],
)
def test_delimiters_line_ends_and_byte_order_marks_do_not_matter(content: str) -> None:
    (row,) = read("x.csv", content)
    assert row.values == {"text": "hi", "label": "a"}


def test_a_file_without_header_is_split_from_the_right() -> None:
    rows = read(
        "x.txt", b'\xef\xbb\xbfmail me@home@neutral\n"quoted" text@positive\n', delimiter="@", columns=("t", "l")
    )
    assert [row.values for row in rows] == [
        {"t": "mail me@home", "l": "neutral"},
        {"t": '"quoted" text', "l": "positive"},
    ]
    assert rows[0].place == "x.txt:1"


def test_quoted_cells_are_refused_where_they_would_be_garbled() -> None:
    (fault,) = faults("x.csv", '"a, b",x\n"c",y\n', columns=("t", "l"))
    assert "in quotes" in fault
    assert "first line" in fault
    assert read("x.csv", 't,l\n"a, b",x\n"c",y\n')[0].values == {"t": "a, b", "l": "x"}


def test_json_lines_and_arrays_give_the_rows_of_csv() -> None:
    lines = read("x.jsonl", '{"n": 1, "f": 0.50, "b": true, "z": null, "nan": NaN}\n\n{"n": 1e3}\n')
    assert [(row.place, row.values) for row in lines] == [
        ("x.jsonl:1", {"n": "1", "f": "0.50", "b": True, "z": None, "nan": None}),
        ("x.jsonl:3", {"n": "1e3"}),
    ]
    array = read("x.json", '[\n  {"t": "]"},\n  {\n  "t": "b"}\n]\n')
    assert [(row.place, row.values["t"]) for row in array] == [("x.json:2", "]"), ("x.json:3", "b")]


def test_where_keeps_rows_and_renumbers_them() -> None:
    rows = read("x.csv", "t,c\na,x\nb, y \nc,x\nd,y\n", where={"c": "y"})
    assert [(row.place, row.number) for row in rows] == [("x.csv:3", 0), ("x.csv:5", 1)]
    assert len(read("x.jsonl", '{"c": 1}\n{"c": 2}\n', where={"c": "1"})) == 1


def test_where_names_the_nearest_column_and_the_values_there_are() -> None:
    (fault,) = faults("x.csv", "text,category\na,x\n", where={"categry": "x"})
    assert "did you mean `category`" in fault
    (fault,) = faults("x.csv", "text,category\na,x\n", where={"category": "y"})
    assert "keeps no row" in fault
    assert "'x'" in fault


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", "", ["x.csv: is empty"]),
        ("x.csv", "\ufeff\n", ["x.csv: is empty"]),
        ("x.csv", "a,b\n", ["x.csv: has no rows"]),
        ("x.json", "[]", ["x.json: has no rows"]),
        ("x.csv", "a,b,a\n1,2,3\n", ["x.csv:1: has the column 'a' twice"]),
        ("x.csv", "a,b\n1,2\n1\n3,4\n1,2,3\n5,6\n", ["x.csv:3: has 1 field, not 2", "x.csv:5: has 3 fields, not 2"]),
        ("x.csv", 'a,b\n1,2\n3,"open\n4,5\n', ["x.csv:3: b: opens a quote that is never closed"]),
        ("x.csv", '"a,b\n1,2\n', ["x.csv:1: field 1: opens a quote"]),
        ("x.csv", "a,b\n1,2\n3,\0\n", ["x.csv:3: holds a NUL byte"]),
        ("x.csv", f"a,b\n1,2\n3,{'x' * 200_000}\n", ["x.csv:3: b: has 200,000 characters"]),
        ("x.jsonl", f'{{"m": [{{"content": "{"x" * 200_000}"}}]}}', ["x.jsonl:1: m: has 200,000 characters"]),
        (
            "x.jsonl",
            '{"a": 1}\n{"a": }\n[1]\n3\n',
            ["x.jsonl:2: is not JSON", "x.jsonl:3: is not", "x.jsonl:4: is not"],
        ),
        ("x.jsonl", '{"a": 1}\n{"a": "\\ud800"}\n', ["x.jsonl:2: holds half of a surrogate pair"]),
        ("x.jsonl", "[" * 100_000, ["x.jsonl:1: is not JSON"]),
        ("x.json", '{\n  "a": [\n    "b"}', ["x.json:3: is not JSON"]),
        ("x.xlsx", "a,b\n1,2\n", ["x.xlsx: is of a kind that is not read (.xlsx); save it as one of .csv"]),
        ("x", "a,b\n1,2\n", ["x: is of a kind that is not read (no suffix)"]),
    ],
)
def test_every_fault_names_its_line(name: str, content: str, said: list[str]) -> None:
    found = faults(name, content)
    assert len(found) == len(said)
    for fault, start in zip(found, said, strict=True):
        assert fault.startswith(start)


def test_cells_just_short_enough_and_quotes_closed_are_fine() -> None:
    assert len(read("x.csv", f'a,b\n1,{"x" * 100_000}\n3,"closed\n4"\n')) == 2


def test_a_long_list_of_faults_is_cut_and_counted() -> None:
    with pytest.raises(DataError, match="has 401 faults") as caught:
        read("x.jsonl", "{}\n" + "bad\n" * 401)
    assert len(caught.value.faults) == 401
    assert str(caught.value).count("\n") == 21
    assert "and 381 more" in str(caught.value)


def test_a_file_whose_rows_mostly_do_not_fit_is_one_fault() -> None:
    content = "According to Gran, all, is well.@neutral\nOther.@positive\n" + "A, b, c, d@neutral\n" * 9
    (fault,) = faults("x.txt", content)
    assert 'columns = ["text", "label"]' in fault
    assert len(read("x.txt", content, delimiter="@", columns=("text", "label"))) == 11


def test_bytes_of_another_encoding_are_named_with_the_remedy() -> None:
    content = "text,label\nfine,a\ncafé,b\n".encode("latin-1")
    (fault,) = faults("x.csv", content)
    assert fault == 'x.csv:3: byte 0xe9 is not utf-8; set encoding = "latin-1"'
    assert read("x.csv", content, encoding="latin-1")[1].values["text"] == "café"
    assert 'set encoding = "utf-16"' in faults("x.csv", "a,b\n1,2\n".encode("utf-16"))[0]
    assert read("x.csv", "a,b\n1,2\n".encode("utf-16"), encoding="utf-16")[0].values == {"a": "1", "b": "2"}
    assert "'utf-ate' is no encoding" in faults("x.csv", "a,b\n1,2\n", encoding="utf-ate")[0]


def test_files_that_cannot_be_read_are_faults() -> None:
    Path("train.csv").write_text("a,b\n1,2\n")
    for name, said in (("trian.csv", "did you mean `train.csv`"), (".", "is a folder"), ("no/x.csv", "does not exist")):
        with pytest.raises(DataError, match=said):
            read_rows(domain(), Path(name))


def test_a_file_without_permission_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(DataError, match=r"x\.csv: cannot be read: Permission denied"):
        read_rows(domain(), Path("x.csv"))


def test_places_are_told_from_the_current_folder(tmp_path: Path) -> None:
    assert show(tmp_path / "data" / "x.csv") == "data/x.csv"
    assert show(Path("./data/x.csv")) == "data/x.csv"
    assert show(Path("../x.csv")) == "../x.csv"
    assert show(SAMPLES / "banking.jsonl") == "sample:banking"


def test_json_keeps_texts_that_only_look_like_numbers() -> None:
    (row,) = read("x.jsonl", json.dumps({"t": "007", "n": 7}))
    assert row.values == {"t": "007", "n": "7"}


def test_a_file_full_of_nul_bytes_is_one_fault() -> None:
    found = faults("x.csv", "text,label\na,b\nc,d\ne,f\n".encode("utf-16-le"))
    assert ["utf-16-le" in fault for fault in found if "NUL" in fault] == [True]


@pytest.mark.parametrize("name", ["a\0b.csv", "x" * 300 + ".csv"])
def test_a_name_that_no_file_can_have_is_a_fault(name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(domain(), Path(name))


def test_what_is_packed_is_to_be_unpacked() -> None:
    assert faults("x.csv.gz", b"\x1f\x8b") == ["x.csv.gz: is of a kind that is not read (.gz); unpack it"]


def test_a_folder_is_read_only_where_plain_text_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; name a file in it"):
        read_rows(domain(), tmp_path)


def test_a_file_all_of_whose_rows_hold_nul_bytes_is_refused_even_where_faulty_rows_may_go(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1\0,2\n")
    with pytest.raises(DataError, match="NUL"):
        read_rows(Domain(name="d", data="x.csv"), path, [])


def test_an_empty_text_of_a_folder_is_that_files_fault_alone(tmp_path: Path) -> None:
    for name, text in (("a.md", "A text."), ("b.md", ""), ("c.md", "Another.")):
        (tmp_path / name).write_text(text)
    domain, faults = Domain(name="d", data=tmp_path.as_posix(), text="text"), list[Fault]()
    assert [row.values["text"] for row in read_rows(domain, tmp_path, faults)] == ["A text.", "Another."]
    assert [fault.problem for fault in faults] == ["is empty"]
    with pytest.raises(DataError, match=r"b\.md: is empty; remove the file"):
        read_rows(domain, tmp_path)
