"""The same exchanges in the shapes that other tools document, by what they hold: answers, pairs, ratings, …

Sources: LLaMA-Factory's data/README.md; Axolotl's docs/dataset-formats and docs/rlhf.qmd; OpenAI's API reference
(FineTuneChatRequestInput, FineTunePreferenceRequestInput); TRL's "Dataset formats and types".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
COUNT = 24


def asked(number: int) -> str:
    return f"How do I reset device {number} after the last update?"


def said(number: int) -> str:
    return f"Hold its button for {number} seconds, then wait for the light."


def worse(number: int) -> str:
    return f"Throw device {number} away and buy a new one."


def role(role: str, content: Any, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def user(content: Any) -> Row:
    return role("user", content)


def assistant(content: Any, **more: Any) -> Row:
    return role("assistant", content, **more)


def human(value: str, **more: Any) -> Row:
    return {"from": "human", "value": value, **more}


def gpt(value: str, **more: Any) -> Row:
    return {"from": "gpt", "value": value, **more}


def parts(text: str) -> list[Row]:
    return [{"type": "text", "text": text}]


SYSTEM = role("system", "Be kind.")
FUNCTION = {
    "name": "reset",
    "description": "Reset a device",
    "parameters": {"type": "object", "properties": {"device": {"type": "integer"}}},
}
TOOL = {"type": "function", "function": FUNCTION}


def calling(number: int, *, as_text: bool = True) -> Row:
    arguments = {"device": number, "share": 0.5}
    return {"name": "reset", "arguments": json.dumps(arguments) if as_text else arguments}


def tool_call(number: int, *, as_text: bool = True) -> Row:
    return {"id": f"call_{number}", "type": "function", "function": calling(number, as_text=as_text)}


Shape = Callable[[int], Row]

ANSWERS: dict[str, Shape] = {
    "completion": lambda i: {"prompt": asked(i), "completion": said(i)},
    "chat_completion": lambda i: {"prompt": [user(asked(i))], "completion": [assistant(said(i))]},
    "alpaca": lambda i: {"instruction": asked(i), "input": "", "output": said(i)},
    "sharegpt": lambda i: {"conversations": [human(asked(i)), gpt(said(i))]},
    "openai": lambda i: {"messages": [user(asked(i)), assistant(said(i))]},
    "openai_parts": lambda i: {"messages": [user(parts(asked(i))), assistant(parts(said(i)))]},
    "openai_refusal": lambda i: {"messages": [user(asked(i)), {"role": "assistant", "refusal": said(i)}]},
    "gpteacher": lambda i: {"instruction": asked(i), "input": "", "response": said(i)},
    "oasst": lambda i: {"INSTRUCTION": asked(i), "RESPONSE": said(i)},
    "load_qa": lambda i: {"question": asked(i), "answer": said(i)},
    "camel_ai": lambda i: {"message_1": asked(i), "message_2": said(i)},
    "metharme": lambda i: {"prompt": asked(i), "generation": said(i)},
    "summarizetldr": lambda i: {"article": asked(i), "summary": said(i)},
    "dolly": lambda i: {"instruction": asked(i), "context": "", "response": said(i), "category": ["qa", "open"][i % 2]},
    "pygmalion": lambda i: {"conversations": [{"role": "user", "value": asked(i)}, {"role": "gpt", "value": said(i)}]},
    "chat_template": lambda i: {"conversations": [user(asked(i)), assistant(said(i))]},
    "input_output": lambda i: {
        "segments": [{"label": False, "text": f"<s>{asked(i)}\n"}, {"label": True, "text": f"{said(i)}</s>"}]
    },
    "capybara": lambda i: {"source": "x", "conversation": [{"input": asked(i), "output": said(i)}]},
}
WITH_SYSTEM: dict[str, Shape] = {
    "openai_with_system": lambda i: {"messages": [SYSTEM, user(asked(i)), assistant(said(i))]},
    "openai_developer": lambda i: {
        "messages": [role("developer", "Be kind."), user(asked(i)), assistant(said(i), name="helper")]
    },
    "sharegpt_with_system": lambda i: {"conversations": [human(asked(i)), gpt(said(i))], "system": "Be kind."},
    "open_orca": lambda i: {"system_prompt": "Be kind.", "question": asked(i), "response": said(i)},
}
BESIDE: dict[str, Shape] = {
    "alpaca_with_input": lambda i: {"instruction": "Answer.", "input": asked(i), "output": said(i)},
    "dolly_with_context": lambda i: {"instruction": "Answer.", "context": asked(i), "response": said(i)},
}
CONTEXTS: dict[str, Shape] = {
    "context_qa_v2": lambda i: {"context": f"Manual of device {i}.", "question": asked(i), "answer": said(i)},
    "context_qa": lambda i: {"article": f"Manual of device {i}.", "question": asked(i), "answer": said(i)},
}
READ_FIRST: dict[str, Shape] = {  # an answer that is only read
    "openai_weight": lambda i: {
        "messages": [user("Hello?"), assistant("Good day.", weight=0), user(asked(i)), assistant(said(i), weight=1)]
    },
    "axolotl_train": lambda i: {
        "conversations": [
            human("Hello?", train=False),
            gpt("Good day.", train=False),
            human(asked(i), train=False),
            gpt(said(i), train=True),
        ]
    },
}
HISTORIES: dict[str, Shape] = {
    "alpaca_with_all": lambda i: {
        "instruction": asked(i),
        "input": "",
        "output": said(i),
        "system": "Be kind.",
        "history": [[f"Hello {i}?", "Good day."]],
    },
    "openai_turns": lambda i: {
        "messages": [SYSTEM, user(f"Hello {i}?"), assistant("Good day."), user(asked(i)), assistant(said(i))]
    },
}
PAIRS: dict[str, Shape] = {
    "preference": lambda i: {"prompt": asked(i), "chosen": said(i), "rejected": worse(i)},
    "implicit_preference": lambda i: {"chosen": f"{asked(i)} {said(i)}", "rejected": f"{asked(i)} {worse(i)}"},
    "chat_preference": lambda i: {
        "prompt": [user(asked(i))],
        "chosen": [assistant(said(i))],
        "rejected": [assistant(worse(i))],
    },
    "implicit_chat_preference": lambda i: {
        "chosen": [user(asked(i)), assistant(said(i))],
        "rejected": [user(asked(i)), assistant(worse(i))],
    },
    "scored_preference": lambda i: {
        "chosen": [user(asked(i)), assistant(said(i))],
        "rejected": [user(asked(i)), assistant(worse(i))],
        "score_chosen": 8.5,
        "score_rejected": 7.0,
    },
    "hh_rlhf": lambda i: {
        "chosen": f"\n\nHuman: {asked(i)}\n\nAssistant: {said(i)}",
        "rejected": f"\n\nHuman: {asked(i)}\n\nAssistant: {worse(i)}",
    },
    "openai_preference": lambda i: {
        "input": {"messages": [user(asked(i))], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [assistant(said(i))],
        "non_preferred_output": [assistant(worse(i))],
    },
    "alpaca_dpo": lambda i: {"instruction": asked(i), "input": "", "chosen": said(i), "rejected": worse(i)},
    "alpaca_dpo_old": lambda i: {"instruction": asked(i), "input": "", "output": [said(i), worse(i)]},
    "sharegpt_dpo": lambda i: {
        "conversations": [human(asked(i))],
        "chosen": gpt(said(i)),
        "rejected": gpt(worse(i)),
    },
    "argilla": lambda i: {"instruction": asked(i), "chosen_response": said(i), "rejected_response": worse(i)},
    "icr": lambda i: {"input": asked(i), "chosen": said(i), "rejected": worse(i)},
    "intel": lambda i: {"question": asked(i), "chosen": said(i), "rejected": worse(i)},
    "ultra": lambda i: {
        "prompt": asked(i),
        "chosen": [user(asked(i)), assistant(said(i))],
        "rejected": [user(asked(i)), assistant(worse(i))],
    },
    "compared": lambda i: {
        "prompt": asked(i),
        **dict(zip(("response_a", "response_b"), (said(i), worse(i))[:: 1 - 2 * (i % 2)], strict=True)),
        "winner": "ab"[i % 2],
    },
    "nectar": lambda i: {
        "prompt": asked(i),
        "answers": [{"answer": worse(i), "rank": 2}, {"answer": said(i), "rank": 1}, {"answer": "No.", "rank": 10}],
    },
}
PAIRS_WITH_SYSTEM: dict[str, Shape] = {
    "intel_with_system": lambda i: {
        "system": "Be kind.",
        "question": asked(i),
        "chosen": said(i),
        "rejected": worse(i),
    },
    "chat_template_default": lambda i: {
        "messages": [SYSTEM, user(asked(i))],
        "chosen": assistant(said(i)),
        "rejected": assistant(worse(i)),
    },
    "sharegpt_dpo_with_system": lambda i: {
        "conversations": [human(asked(i))],
        "chosen": gpt(said(i)),
        "rejected": gpt(worse(i)),
        "system": "Be kind.",
    },
}
RATINGS: dict[str, Shape] = {
    "unpaired_preference": lambda i: {"prompt": asked(i), "completion": said(i), "label": i % 2 == 0},
    "unpaired_chat_preference": lambda i: {
        "prompt": [user(asked(i))],
        "completion": [assistant(said(i))],
        "label": i % 2 == 0,
    },
    "alpaca_kto": lambda i: {"instruction": asked(i), "input": "", "output": said(i), "kto_tag": i % 2 == 0},
    "sharegpt_kto": lambda i: {"conversations": [human(asked(i)), gpt(said(i))], "kto_tag": i % 2 == 0},
    "argilla_kto": lambda i: {"instruction": asked(i), "completion": said(i), "label": i % 2 == 0},
    "argilla_chat_kto": lambda i: {
        "chosen": [user(asked(i))],
        "completion": [assistant(said(i))],
        "label": i % 2 == 0,
    },
    "intel_kto": lambda i: {"question": asked(i), "completion": said(i), "label": i % 2 == 0},
}
TOOLS: dict[str, Shape] = {
    "openai_tools": lambda i: {
        "messages": [
            user(asked(i)),
            assistant(None, tool_calls=[tool_call(i)]),
            role("tool", "done", tool_call_id=f"call_{i}"),
            assistant(said(i)),
        ],
        "parallel_tool_calls": False,
        "tools": [TOOL],
    },
    "trl_tools": lambda i: {
        "messages": [
            user(asked(i)),
            {"role": "assistant", "tool_calls": [tool_call(i, as_text=False)]},
            {"role": "tool", "name": "reset", "content": "done"},
            assistant(said(i)),
        ],
        "tools": json.dumps([TOOL]),
    },
}
FUNCTIONS: dict[str, Shape] = {
    "sharegpt_tools": lambda i: {
        "conversations": [
            human(asked(i)),
            {"from": "function_call", "value": json.dumps(calling(i, as_text=False))},
            {"from": "observation", "value": "done"},
            gpt(said(i)),
        ],
        "tools": json.dumps([FUNCTION]),
    },
    "openai_functions": lambda i: {
        "messages": [
            user(asked(i)),
            assistant(None, function_call=calling(i)),
            {"role": "function", "name": "reset", "content": "done"},
            assistant(said(i)),
        ],
        "functions": [FUNCTION],
    },
}
_OPTIONS = ["Hold its button", "Wait for the light", "Call us", "Read the manual"]
CHOICES: dict[str, Shape] = {
    "choice_list": lambda i: {"question": asked(i), "choices": _OPTIONS, "answer": i % 4},
    "choice_columns": lambda i: {
        "question": asked(i),
        **{f"choice{index}": text for index, text in enumerate(_OPTIONS)},
        "answer": i % 4,
    },
    "medmcqa": lambda i: {
        "question": asked(i),
        **dict(zip(("opa", "opb", "opc", "opd"), _OPTIONS, strict=True)),
        "cop": i % 4 + 1,
    },
    "medqa": lambda i: {
        "question": asked(i),
        "options": dict(zip("ABCD", _OPTIONS, strict=True)),
        "answer_idx": "ABCD"[i % 4],
        "answer": _OPTIONS[i % 4],
    },
    "arc": lambda i: {
        "question": asked(i),
        "choices": {"text": _OPTIONS, "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[i % 4],
    },
    "lettered_columns": lambda i: {
        "question": asked(i),
        **dict(zip("ABCD", _OPTIONS, strict=True)),
        "answer": "ABCD"[i % 4],
    },
    "concisechoice": lambda i: {
        "question": asked(i),
        "choices": _OPTIONS,
        "solution": _OPTIONS[i % 4],
        "explanation": said(i),
    },
}
TEXTS: dict[str, Shape] = {
    "text": lambda i: {"text": f"{asked(i)} {said(i)}"},
    "content": lambda i: {"content": f"{asked(i)} {said(i)}"},
    "input_output_text": lambda i: {
        "segments": [{"label": True, "text": f"<s>{asked(i)} "}, {"label": True, "text": f"{said(i)}</s>"}]
    },
}
FAMILIES = [
    ANSWERS,
    WITH_SYSTEM,
    BESIDE,
    CONTEXTS,
    READ_FIRST,
    HISTORIES,
    PAIRS,
    PAIRS_WITH_SYSTEM,
    RATINGS,
    TOOLS,
    FUNCTIONS,
    CHOICES,
    TEXTS,
]
SHAPES = {name: shape for family in FAMILIES for name, shape in family.items()}


def rows(shape: Shape) -> list[Row]:
    return [shape(number) for number in range(COUNT)]
