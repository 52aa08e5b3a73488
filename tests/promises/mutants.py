"""Good files and recipes of every format and shape that metier reads, and seeded ways to spoil them."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tomlkit

Files = Mapping[str, bytes]
Rows = list[dict[str, Any]]

COUNT = 24
ASKED = [f"How do I replace part {n} of my telephone?" for n in range(COUNT)]
TOLD = [f"Open the lid, then take out part {n} with care." for n in range(COUNT)]
NUMBERS = range(COUNT)


@dataclass(frozen=True)
class Good:
    """A folder in which `metier check recipe.toml` finds no fault; `data` is the file that may be spoilt."""

    name: str
    files: Files
    data: str
    guessed: bool = True  # whether the file by itself tells what it is


@dataclass(frozen=True)
class Mutant:
    """A spoilt folder: what was done to which file, and the arguments of the command to run in it."""

    story: str
    files: Files
    target: str
    command: tuple[str, ...]


def _said(role: str, content: str, names: tuple[str, str] = ("role", "content")) -> dict[str, str]:
    return dict(zip(names, (role, content), strict=True))


def _chat(n: int) -> list[dict[str, str]]:
    return [_said("user", ASKED[n]), _said("assistant", TOLD[n])]


def _call(n: int) -> list[dict[str, Any]]:
    called = {"type": "function", "function": {"name": "part", "arguments": json.dumps({"number": n})}}
    return [
        _said("user", ASKED[n]),
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "content": "found"},
        _said("assistant", TOLD[n]),
    ]


PAIRS: Rows = [{"prompt": ASKED[n], "answer": TOLD[n]} for n in NUMBERS]
LABELS: Rows = [{"text": ASKED[n], "label": ("up", "down")[n % 2]} for n in NUMBERS]
IDS: Rows = [{"id": f"q{n}", "group": f"g{n // 2}", **PAIRS[n]} for n in NUMBERS]
TOOL = {"type": "function", "function": {"name": "part", "parameters": {"type": "object"}}}
SHAPES: dict[str, Rows] = {
    "pairs": PAIRS,
    "labels": LABELS,
    "openai": [{"messages": _chat(n)} for n in NUMBERS],
    "sharegpt": [
        {"conversations": [_said("human", ASKED[n], ("from", "value")), _said("gpt", TOLD[n], ("from", "value"))]}
        for n in NUMBERS
    ],
    "trl": [{"prompt": _chat(n)[:1], "completion": _chat(n)[1:]} for n in NUMBERS],
    "one message a row": [
        {"thread": f"t{n}", "sent": f"2026-01-0{1 + place} 10:00", "sender": each["role"], "text": each["content"]}
        for n in NUMBERS
        for place, each in enumerate(_chat(n))
    ],
    "alpaca": [
        {"instruction": ASKED[n], "input": "", "output": TOLD[n], "system": "", "history": [[ASKED[n - 1], TOLD[n]]]}
        for n in NUMBERS
    ],
    "preferences": [{"prompt": ASKED[n], "chosen": TOLD[n], "rejected": f"No idea {n}."} for n in NUMBERS],
    "preferred chats": [{"chosen": _chat(n), "rejected": [*_chat(n)[:1], _said("assistant", "No.")]} for n in NUMBERS],
    "ratings": [{"prompt": ASKED[n], "completion": TOLD[n], "label": n % 3 > 0} for n in NUMBERS],
    "listed choices": [
        {"question": ASKED[n], "choices": [TOLD[n], "No idea.", f"Part {n}."], "answer": n % 3} for n in NUMBERS
    ],
    "choices in columns": [
        {"question": ASKED[n], "A": TOLD[n], "B": "No idea.", "C": f"Part {n}.", "answer": "ABC"[n % 3]}
        for n in NUMBERS
    ],
    "named choices": [
        {
            "question": ASKED[n],
            "choices": {"text": [TOLD[n], "No idea."], "label": ["A", "B"]},
            "answerKey": "AB"[n % 2],
        }
        for n in NUMBERS
    ],
    "tool calls": [{"messages": _call(n), "tools": json.dumps([TOOL])} for n in NUMBERS],
    "scores": [{"text": ASKED[n], "score": (n - 12) / 12} for n in NUMBERS],
    "nested": [
        {"about": f"a{n}", "qas": [{"question": ASKED[n], "reply": TOLD[n]}, {"question": f"And {n}?", "reply": "No."}]}
        for n in NUMBERS
    ],
    "ids": IDS,
    "plain": [{"text": f"{ASKED[n]} {TOLD[n]}"} for n in NUMBERS],
}
EXTRA: dict[str, dict[str, Any]] = {
    "labels": {
        "prompt": "{instruction}\nText: {text}\nAnswer:",
        "answer": "{label}",
        "labels": ["up", "down"],
        "instruction": "Which of {labels}?",
        "heldout": {"permutation": 42, "share": 0.25},
    },
    "one message a row": {
        "conversation": "thread",
        "role": "sender",
        "content": "text",
        "time": "sent",
        "role_map": {"robot": "assistant"},
    },
    "scores": {"prompt": "{text}", "answer": "{score}", "bins": {"low": -0.1, "middle": 0.1, "high": float("inf")}},
    "nested": {"explode": "qas", "prompt": "{question}", "answer": "{reply}", "group": "about"},
    "ids": {"id": "id", "group": "group", "system": "You repair telephones.", "weight": 2.0, "validation": 0.2},
    "choices in columns": {
        "choices": ["A", "B", "C"],
        "prompt": "{question}\n{choices}\nAnswer:",
        "answer": "{answer}",
    },
    "plain": {"text": "text"},
    "pairs": {"where": {}, "prompt": "{prompt}", "answer": "{answer}"},
}
PROSE = "\n\n".join(f"# Part {n}\n\n{ASKED[n]} {TOLD[n]} {'It takes a while. ' * 20}" for n in NUMBERS)
MAPPED = ("nested", "scores")  # which no names and values tell
FLAT = ("pairs", "labels", "one message a row", "preferences", "ratings", "choices in columns", "scores", "ids")
STRATEGIES: tuple[dict[str, Any], ...] = (
    {"method": "none", "num_fewshot": 2, "fewshot_sampler": "random"},
    {"method": "classical"},
    {"method": "lora", "peft": {"r": 4, "lora_alpha": 8.0, "target_modules": ["qkv_proj"], "use_rslora": True}},
    {"method": "qlora", "objective": "auto", "peft": {"r": 4, "lora_dropout": 0.1}},
    {"method": "full"},
    {"method": "last-n", "layers": 1},
    {"method": "ia3", "peft": {"target_modules": ["qkv_proj"], "feedforward_modules": []}},
    {"method": "vera", "peft": {"r": 8, "vera_dropout": 0.0}},
    {"method": "prompt_tuning", "peft": {"num_virtual_tokens": 4}},
)


def _csv(rows: Rows, delimiter: str) -> bytes:
    made = io.StringIO()
    writer = csv.writer(made, delimiter=delimiter, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return made.getvalue().encode()


def _jsonl(rows: Rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for row in rows)


def _parquet(rows: Rows) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "x.jsonl": _jsonl,
    "x.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "keyed.json": lambda rows: json.dumps({f"k{n}": row for n, row in enumerate(rows)}, indent=1).encode(),
    "x.parquet": _parquet,
}
FLAT_WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "x.csv": lambda rows: _csv(rows, ","),
    "semicolon.csv": lambda rows: _csv(rows, ";"),
    "pipe.csv": lambda rows: _csv(rows, "|"),
    "x.tsv": lambda rows: _csv(rows, "\t"),
    "table.txt": lambda rows: _csv(rows, "\t"),
}


def _recipe(data: str, extra: Mapping[str, Any], strategy: Mapping[str, Any]) -> bytes:
    """A recipe with every table."""
    raw = {
        "model": "nano",
        "domain": [{"name": "support", "data": data, **extra}],
        "strategy": dict(strategy),
        "train": {"max_length": 512, "learning_rate": 1e-4, "batch_size": 8, "seed": 3, "lr_scheduler_type": "cosine"},
        "eval": {"max_new_tokens": 16, "limit": 4, "guard": {"general_text": 0.2}},
    }
    return tomlkit.dumps(raw).encode()


def _goods() -> list[Good]:
    found, strategies = [], 0
    for shape, rows in SHAPES.items():
        writers = {**WRITERS, **(FLAT_WRITERS if shape in FLAT else {})}
        for data, write in writers.items():
            strategy = STRATEGIES[strategies % len(STRATEGIES)]
            if shape == "plain" and "num_fewshot" in strategy:  # which asks nothing
                strategy = STRATEGIES[2]
            strategies += 1
            files = {data: write(rows), "recipe.toml": _recipe(data, EXTRA.get(shape, {}), strategy)}
            found.append(Good(f"{shape} in {data} for {strategy['method']}", files, data, shape not in MAPPED))
    return [*found, *_texts(), *_own_heldout()]


def _texts() -> list[Good]:
    lora = STRATEGIES[2]
    folder = {f"texts/{n}.{('md', 'txt')[n % 2]}": PROSE[n * 500 :][:3000].encode() for n in range(12)}
    return [
        Good("Markdown", {"x.md": PROSE.encode(), "recipe.toml": _recipe("x.md", {}, lora)}, "x.md"),
        Good("text", {"x.txt": PROSE.encode(), "recipe.toml": _recipe("x.txt", {"text": "text"}, lora)}, "x.txt"),
        Good("a folder", {**folder, "recipe.toml": _recipe("texts", {}, lora)}, "texts/3.txt", False),
    ]


def _own_heldout() -> list[Good]:
    """What is held out stands in a file, as rows or as ids; two instructions; a file of other names."""
    rows, lora = {"x.csv": _csv(IDS[:16], ","), "test.csv": _csv(IDS[16:], ",")}, STRATEGIES[2]
    listed = {"x.csv": _csv(IDS, ","), "ids.json": json.dumps([f"q{n}" for n in range(8)]).encode()}
    asked = {
        "prompt": "{instruction}\n{text}",
        "answer": "{label}",
        "instructions": ["Up or down?", "Choose from {labels}."],
        "label_map": {"up": "rises", "down": "falls"},
    }
    bare = b"".join(f"{row['text']}, {row['label']}\n".encode() for row in LABELS)
    return [
        Good(
            "held out in a file",
            {**rows, "recipe.toml": _recipe("x.csv", {"heldout": "test.csv"}, lora)},
            "test.csv",
            False,
        ),
        Good(
            "held out by ids",
            {**listed, "recipe.toml": _recipe("x.csv", {"id": "id", "heldout": {"ids": "ids.json"}}, lora)},
            "ids.json",
            False,
        ),
        Good(
            "instructions", {"x.csv": _csv(LABELS, ","), "recipe.toml": _recipe("x.csv", asked, STRATEGIES[0])}, "x.csv"
        ),
        Good(
            "without header",
            {"x.csv": bare, "recipe.toml": _recipe("x.csv", {"columns": ["text", "label"]}, lora)},
            "x.csv",
            False,
        ),
    ]


GOODS = _goods()

TEXTS = ["", " ", "\n", "ü", "{", "{nope}", "\0", "\ud800", "x" * 120_000, "[]", "[1]", '{"a":1}', "NaN", "inf", "-1"]
TEXTS += ["1e999", "true", "null", '"', "'", "\u2028", "\r", "\ufeff", "=1+1", "../x", "/", "nano", "auto", "💥" * 9]
ODD: list[Any] = [*TEXTS, None, True, 0, -1, 3, 10**30, 1e308, float("nan"), float("inf"), -float("inf"), 0.5]
ODD += [[], {}, [[]], [None], [1, "a"], {"a": None}, {"role": "user"}, [{"role": 3}], [["a", "b"]], [["a", "b", "c"]]]
BYTES = [b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b'"', b",", b";", b"\t", b"|", b"{", b"}", b"[", b"]"]
BYTES += ["ü".encode("latin-1"), b"\xed\xa0\x80", b"\\ud800", b"'", b"#", b"=", b'"""', b"\x1a", b"\\", b":"]


def _sites(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a value."""
    if isinstance(value, dict):
        return [site for key, each in value.items() for site in ((value, key), *_sites(each))]
    if isinstance(value, list):
        return [site for key, each in enumerate(value) for site in ((value, key), *_sites(each))]
    return []


def spoil_value(value: Any, rng: random.Random, *, toml: bool = False) -> str:
    """Change one place of a nested value; what was done."""
    container, key = rng.choice(_sites(value))
    odd = [each for each in ODD if each not in (None, [None], {"a": None})] if toml else ODD
    match rng.randrange(6):
        case 0:
            del container[key]
            return f"deleted {key!r}"
        case 1 if isinstance(container, dict):
            misspelt = _misspelt(str(key), rng)
            container[misspelt] = container.pop(key)
            return f"renamed {key!r} to {misspelt[:40]!r}"
        case 2 if isinstance(container, list):
            container.insert(rng.randrange(len(container) + 1), copy.deepcopy(container[key]))
            return f"repeated {key!r}"
        case 3 if isinstance(container, dict):
            added = rng.choice(["", "ü", "id", "prompt", "a b", "{x}", "choices", "data", "text", "seed"])
            container[added] = rng.choice(odd)
            return f"added {added!r}: {container[added]!r:.60}"
    container[key] = copy.deepcopy(rng.choice(odd))
    return f"set {key!r} to {container[key]!r:.60}"


def _misspelt(name: str, rng: random.Random) -> str:
    at = rng.randrange(max(1, len(name)))
    return rng.choice([name[:at] + name[at + 1 :], name[:at] + "x" + name[at:], name.upper(), f" {name}", f"{name}\0"])


def spoil_bytes(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change bytes, without regard to what they mean."""
    at, until = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    until = min(until, at + 200)
    piece = rng.choice(BYTES)
    match rng.randrange(5):
        case 0:
            return data[:at], f"cut off at byte {at}"
        case 1:
            return data[:at] + data[until:], f"bytes {at} to {until} deleted"
        case 2:
            return data[:until] + data[at:], f"bytes {at} to {until} repeated"
        case 3:
            return data[:at] + data[at : at + 2][::-1] + data[at + 2 :], f"bytes {at} and {at + 1} swapped"
    return data[:at] + piece + data[at:], f"{piece!r} put in at byte {at}"


def spoil_lines(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    lines = data.splitlines(keepends=True)
    one, other = (rng.randrange(len(lines)) for _ in range(2))
    match rng.randrange(5):
        case 0:
            del lines[one]
        case 1:
            lines.insert(other, lines[one])
        case 2:
            lines[one], lines[other] = lines[other], lines[one]
        case 3:
            lines = lines[: rng.randrange(3)]
        case 4:
            lines[one] = b"[" * 100_000 + b"\n"
    return b"".join(lines), f"lines {one + 1} and {other + 1}"


def spoil_whole(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Another encoding, other line ends, nothing at all."""
    text = data.decode("utf-8", "replace")
    ways = {
        "utf-16": text.encode("utf-16"),
        "utf-16 without mark": text.encode("utf-16-le"),
        "utf-8 with mark": b"\xef\xbb\xbf" + data,
        "two marks": b"\xef\xbb\xbf" * 2 + data,
        "Latin-1": text.replace("telephone", "téléphone").encode("latin-1", "replace"),
        "CRLF": data.replace(b"\n", b"\r\n"),
        "CR": data.replace(b"\n", b"\r"),
        "one line": data.replace(b"\n", b" "),
        "emptied": b"",
        "blank": b" \n\t\n",
        "NUL": b"\0" * 50,
        "twice": data + data,
        "random": rng.randbytes(300),
        "HTML": b"<!DOCTYPE html><html><body>404</body></html>",
        "gzip": b"\x1f\x8b\x08\x00" + data,
        "nested": b"[" * 50_000,
        "nested objects": b'{"a":' * 50_000,
        "a number": b"42",
        "a text": b'"abc"',
        "nothing in it": rng.choice([b"[]", b"{}", b"null", b"[{}]", b'{"a": {}}', b"\xef\xbb\xbf"]),
    }
    name = rng.choice(list(ways))
    return ways[name], name


def spoil_rows(name: str, data: bytes, rng: random.Random) -> tuple[bytes, str] | None:
    """Change what a file says, written well; None where the format does not take it."""
    if name.endswith((".csv", ".tsv", "table.txt")):
        return _spoil_cells(name, data, rng)
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in data.splitlines()]
        story = spoil_value(rows, rng)
        return b"".join(_json(row) + b"\n" for row in rows), story
    if name.endswith(".json"):
        value = json.loads(data)
        story = spoil_value(value, rng)
        return _json(value), story
    if name.endswith(".parquet"):
        return _spoil_table(data, rng)
    return None


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _spoil_table(data: bytes, rng: random.Random) -> tuple[bytes, str] | None:
    import pyarrow
    from pyarrow import parquet

    rows = parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    column = rng.choice(list(rows[0]))
    value = rng.choice([*ODD, b"\xff\0"])
    changed = rows if rng.random() < 0.5 else rows[: rng.randrange(1, 3)]
    for row in changed:
        row[column] = value
    try:
        return _parquet(rows), f"column {column!r} of {len(changed)} rows set to {value!r:.60}"
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError):
        return None


def _spoil_cells(name: str, data: bytes, rng: random.Random) -> tuple[bytes, str]:
    delimiter = {"semicolon.csv": ";", "pipe.csv": "|", "x.tsv": "\t", "table.txt": "\t"}.get(name, ",")
    rows = list(csv.reader(io.StringIO(data.decode()), delimiter=delimiter))
    line, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    match rng.randrange(5):
        case 0:
            rows[line][column] = str(rng.choice(ODD))
            story = f"cell {column + 1} of line {line + 1} is {rows[line][column]!r:.60}"
        case 1:
            rows = [[cell for place, cell in enumerate(row) if place != column] for row in rows]
            story = f"column {column + 1} deleted"
        case 2:
            rows = [[*row, row[column]] for row in rows]
            story = f"column {column + 1} twice"
        case 3:
            odd = str(rng.choice(ODD))
            rows = [rows[0], *([*row[:column], odd, *row[column + 1 :]] for row in rows[1:])]
            story = f"column {column + 1} is {odd!r:.60}"
        case _:
            del rows[line][column]
            story = f"cell {column + 1} of line {line + 1} deleted"
    made = io.StringIO()
    csv.writer(made, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return made.getvalue().encode("utf-8", "surrogatepass"), story


PATHS = [
    "",
    ".",
    "..",
    "/",
    "/nowhere/x.csv",
    "nowhere.csv",
    "texts",
    "X.CSV",
    "sample:nope",
    "sample:",
    "hub:a/b",
    "~",
]
PATHS += ["recipe.toml", "loop.csv", "x.csv.gz", "a\0b.csv", "x" * 300 + ".csv", "https://example.org/x.csv", "hub:"]
SETTINGS = ["", "=", "x", "x=", "=1", "train=3", "train.seed=-1", "train.seed=", "train.seed=1.5", "train.seed=[1]"]
SETTINGS += [
    "domain=3",
    "domain.weight=2",
    "domain.support.weight=nan",
    "domain.support.weight=inf",
    "domain.0.weight=0",
]
SETTINGS += ["domain.9.weight=1", "domain.support=3", "domain.support.heldout=1", "domain.support.heldout=0"]
SETTINGS += ["domain.support.heldout={ids=3}", "domain.support.where=3", "domain.support.where.answer=x", "model="]
SETTINGS += ["model=3", "model=nono", "model=/", "model=.", "model=runs/none", "strategy=lora", "strategy.method=lra"]
SETTINGS += ["strategy.method=3", "strategy.peft=3", "strategy.peft.r=0", "strategy.peft.r.x=0", "strategy.peft.q=1"]
SETTINGS += ["strategy.peft.target_modules=", "strategy.peft.target_modules=[]", "strategy.peft.target_modules=(((("]
SETTINGS += ["train.learning_rate=inf", "train.learning_rate=nan", "train.learning_rate=-1", "train.max_length=7"]
SETTINGS += ["train.max_length=99999999999999999999", "train.num_train_epochs=inf", "train.batch_size=1e9", "path=x"]
SETTINGS += ["eval.limit=0", "eval.general_text=", "eval.general_text=x.csv", "eval.guard.x=1", "eval.guard=1", "..=1"]
SETTINGS += ["train.eval_steps=nan", "train.warmup_steps=inf", "data_root=/nowhere", "data_root=..", "a.b.c.d=1", "é=1"]
SETTINGS += ["strategy.num_fewshot=1000000", "strategy.beta=-1", "strategy.objective=dpo", "strategy.layers=99"]
SETTINGS += [
    "strategy.peft.r=1000000",
    'strategy.peft.modules_to_save=["nope"]',
    "strategy.objective=lm",
    "train.seed=true",
]


def spoil_recipe(good: Good, rng: random.Random) -> tuple[bytes, str]:
    """Change what a recipe says, written well."""
    raw = tomllib.loads(good.files["recipe.toml"].decode())
    if rng.random() < 0.15:
        key = rng.choice(["data", "heldout", "validation"])
        raw["domain"][0][key] = rng.choice(PATHS)
        story = f"{key} = {raw['domain'][0][key]!r:.60}"
    else:
        story = spoil_value(raw, rng, toml=True)
    try:
        return tomlkit.dumps(raw).encode(), story
    except (ValueError, UnicodeEncodeError, TypeError):  # TOML cannot say it
        return spoil_bytes(good.files["recipe.toml"], rng)


def mutant(seed: int) -> Mutant:
    """The one mutant of a seed."""
    rng = random.Random(seed)
    good = GOODS[seed % len(GOODS)]
    command: tuple[str, ...] = ("check", "recipe.toml", "--offline")
    what = rng.random()
    if what < 0.1:
        setting = rng.choice(SETTINGS)
        return Mutant(f"{good.name}: --set {setting}", good.files, "", (*command, "--set", setting))
    if what < 0.4:
        ways = [lambda: spoil_recipe(good, rng)] * 4
        ways += [
            lambda: spoil_bytes(good.files["recipe.toml"], rng),
            lambda: spoil_lines(good.files["recipe.toml"], rng),
        ]
        ways += [lambda: spoil_whole(good.files["recipe.toml"], rng)]
        target = "recipe.toml"
    else:
        target, data = good.data, good.files[good.data]
        ways = [lambda: spoil_rows(target, data, rng) or spoil_bytes(data, rng)] * 3
        ways += [lambda: spoil_bytes(data, rng), lambda: spoil_lines(data, rng), lambda: spoil_whole(data, rng)]
        command = rng.choice([command] * 4 + [("check", target, "--offline"), ("init", target, "--offline")])
    spoilt, story = rng.choice(ways)()
    found = Mutant(f"{good.name}: {target}: {story}", {**good.files, target: spoilt}, target, command)
    if command[0] == "init":  # it writes this file
        found = replace(found, files={name: each for name, each in found.files.items() if name != "recipe.toml"})
    return found
