from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, LlamaConfig, Phi3Config

from metier.inference import engine as engines
from metier.inference import logprobs
from metier.inference.cache import Next, TreeDecoder
from metier.inference.drafts import Draft
from metier.inference.engine import Capacity, Delta, Engine, Request
from metier.inference.reading import Prompt
from metier.inference.sampling import Sampling
from metier.inference.shelves import Shelf, held
from metier.model.forward import ATTENTION, Forward, register
from metier.trees import Example

_SMALL: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 16,
}
CONFIGS = {
    "llama": LlamaConfig(**_SMALL),
    "gemma2": Gemma2Config(**_SMALL, head_dim=8, sliding_window=5, attn_logit_softcapping=2.0),
    "longrope": Phi3Config(**_SMALL, original_max_position_embeddings=16, rope_parameters=_LONGROPE),
}
PROMPTS = [(3, 4, 5, 6), (3, 4, 5, 7, 8), (9,), (3, 4, 5, 6), tuple(range(10, 22))]
STOP = frozenset({1, 2})


def network(name: str, attention: str) -> nn.Module:
    import copy

    register()
    torch.manual_seed(1)
    made: nn.Module = AutoModelForCausalLM.from_config(
        copy.deepcopy(CONFIGS[name]), attn_implementation=attention, dtype=torch.float32
    )
    for parameter in made.parameters():  # spread out, so that no two tokens are nearly as likely
        parameter.data *= 3
    return made.eval()


def engine(name: str, *, sequences: int = 4, tokens: int = 64) -> Engine:
    limit = 16 if name == "longrope" else None
    return Engine(Forward(network(name, ATTENTION), forks=True), Capacity(tokens, sequences), boundary=limit)


@torch.no_grad()
def alone(made: nn.Module, prompt: tuple[int, ...], count: int, stop: frozenset[int] = STOP) -> list[int]:
    """Greedy decoding in plain transformers, the whole row read again for every token."""
    row = list(prompt)
    for _ in range(count):
        token = int(made(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1].argmax())
        if token in stop:
            break
        row.append(token)
    return row[len(prompt) :]


@pytest.mark.parametrize("tuned", [True, False])
def test_what_a_tuned_network_sets_in_its_forward_is_of_use_to_autograd(tuned: bool) -> None:
    made, kept = network("llama", ATTENTION).requires_grad_(tuned), list[Tensor]()
    made.register_forward_pre_hook(lambda *_: kept.append(torch.zeros(1)))
    engine = Engine(Forward(made, forks=True), Capacity(64, 2), boundary=None)
    handle = engine.submit(Request((3, 4, 5), 4, STOP))
    engine.step()
    engine.cancel(handle)
    assert [each.is_inference() for each in kept] == [not tuned]
    assert not engine.busy


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("sequences", [1, 2, 8])
def test_decoding_together_equals_decoding_alone(name: str, sequences: int) -> None:
    plain = network(name, "eager")
    made = engine(name, sequences=sequences)
    found = {index: tokens for index, tokens, _ in made.run([Request(prompt, 12, STOP) for prompt in PROMPTS])}
    assert found == {index: alone(plain, prompt, 12) for index, prompt in enumerate(PROMPTS)}
    assert not made.busy


def steps_of(made: Engine, requests: Sequence[Request]) -> tuple[int, dict[int, list[Delta]]]:
    """How many forwards it takes them, and what each heard."""
    heard: dict[int, list[Delta]] = {made.submit(request): [] for request in requests}
    steps = 0
    while made.busy:
        steps += 1
        for delta in made.step():
            heard[delta.handle].append(delta)
    return steps, dict(enumerate(heard.values()))


_SEEDED = Sampling(temperature=0.3, top_p=0.9, frequency_penalty=0.2, seed=5)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("sampling", [Sampling(), _SEEDED], ids=["greedy", "seeded"])
def test_what_was_said_before_is_said_again_in_fewer_forwards_and_the_same(
    name: str, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over LongRoPE's boundary, too, and behind windows; with likelihoods, and whatever ends it."""
    asked = [
        Request(prompt, most, frozenset({stop}), sampling=sampling, logprobs=2)
        for prompt, most, stop in zip(PROMPTS, (30, 17, 1, 2, 40), (1, 2, 48, 5, 7), strict=True)
    ]
    monkeypatch.setattr(engines, "_ROWS", 0)
    plain, expected = steps_of(engine(name, sequences=3), asked)
    monkeypatch.undo()
    made, counts = engine(name, sequences=3), list[int]()
    for _ in range(4):
        count, found = steps_of(made, asked)
        counts.append(count)
        for place, deltas in found.items():
            assert [(each.token, each.finish) for each in deltas] == [
                (each.token, each.finish) for each in expected[place]
            ]
            told = [each.logprob for each in deltas if each.logprob is not None]
            assert told == pytest.approx([each.logprob for each in expected[place] if each.token is not None], abs=1e-4)
    assert counts[-1] < 0.7 * plain
    assert counts[-1] < counts[0]


def test_what_one_tenant_heard_is_no_guess_for_another() -> None:
    made, asked = engine("llama"), [Request(PROMPTS[4], 20, frozenset())]
    first = steps_of(made, asked)[0]
    assert steps_of(made, asked)[0] < first
    assert steps_of(made, [replace(asked[0], tenant="other")])[0] == first


def test_a_wrong_guess_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what is said next nor what is kept of the prompt for whoever goes on from it."""
    monkeypatch.setattr(Draft, "guess", lambda self, most: tuple(40 + place for place in range(min(most, 3))))
    plain, forward = network("llama", "eager"), Forward(network("llama", ATTENTION), forks=True)
    made = Engine(forward, Capacity(64, 4, remember=2**20), boundary=None)
    asked = [Request(prompt, 12, STOP) for prompt in PROMPTS]
    for _ in range(2):
        found = {index: tokens for index, tokens, _ in made.run(asked)}
        assert found == {index: alone(plain, prompt, 12) for index, prompt in enumerate(PROMPTS)}
    whole = (*PROMPTS[4], *found[4], 5)
    ((_, tokens, _),) = made.run([Request(whole, 6, STOP)])
    assert tokens == alone(plain, whole, 6)


def test_requests_join_and_leave_while_others_decode() -> None:
    plain, made = network("llama", "eager"), engine("llama")
    first = made.submit(Request(PROMPTS[0], 10, STOP))
    made.step()
    made.step()
    dropped, second = made.submit(Request(PROMPTS[1], 50, STOP)), made.submit(Request(PROMPTS[2], 6, STOP))
    said: dict[int, list[int]] = {first: [], second: []}
    made_again = [*alone(plain, PROMPTS[0], 3)]
    made.step()  # reads these, and goes on with the first
    made.cancel(dropped)
    made.cancel(12345)
    while made.busy:
        for delta in made.step():
            if delta.token is not None and delta.handle in said:
                said[delta.handle].append(delta.token)
    assert [*made_again, *said[first]] == alone(plain, PROMPTS[0], 10)
    assert alone(plain, PROMPTS[2], 6)[-len(said[second]) :] == said[second]


def test_it_says_why_an_answer_ended() -> None:
    made = engine("llama")
    ends = {finish for _, _, finish in made.run([Request(PROMPTS[0], 3, frozenset())])}
    assert ends == {"length"}
    token = alone(network("llama", "eager"), PROMPTS[0], 1)[0]
    (ended,) = made.run([Request(PROMPTS[0], 3, frozenset({token}))])
    assert ended == (0, [], "stop")


def test_no_more_decode_together_than_their_longest_leaves_positions_for() -> None:
    made = Engine(Forward(network("llama", ATTENTION), forks=True), Capacity(64, 8, positions=256), boundary=None)
    requests = [Request(PROMPTS[0], 6, frozenset()), *[Request(PROMPTS[2], 4, frozenset())] * 3]
    long = Request(PROMPTS[4], 200, frozenset())  # as many as there are, and alone for that
    together, alone, found = list[int](), 0, dict[int, int]()
    places = {made.submit(request): request.max_new_tokens for request in (*requests, long, *requests)}
    while made.busy:
        said = made.step()
        for delta in said:
            found[delta.handle] = found.get(delta.handle, 0) + 1
        together.append(len(made._active))
        alone += len(said) if len({delta.handle for delta in said}) == 1 else 0
    assert found == places
    assert max(together) == 4
    assert alone >= 199


def test_both_sides_of_a_boundary_take_turns() -> None:
    made = engine("longrope")
    long = made.submit(Request(tuple(3 + n % 40 for n in range(20)), 30, frozenset()))
    said = 0
    for _ in range(200):
        while len(made._active) + made.queued < 4:  # short ones without end
            made.submit(Request(PROMPTS[0], 4, frozenset()))
        said += sum(delta.handle == long for delta in made.step())
    assert said == 30


@pytest.mark.parametrize(
    ("mosts", "places"),
    [([10], 64), ([64, 9, 1], 256), ([65] * 9, 2048), ([1] * 17, 2048), ([4097, *[100] * 4], 4160 + 4 * 128)],
)
def test_shelves_take_little_more_than_is_held(mosts: list[int], places: int) -> None:
    assert held(mosts) == places


def shelves(made: Engine) -> list[Shelf]:
    assert isinstance(made._decoder, TreeDecoder)
    return [*made._decoder._shelves.values()]


def taken(made: Engine) -> int:
    """Positions that are held at this moment."""
    keys = [next(iter(shelf._keys.values())) for shelf in shelves(made)]
    return sum(each.shape[0] * each.shape[2] for each in keys)


def test_a_long_answer_takes_no_places_from_short_ones() -> None:
    made = Engine(Forward(network("llama", ATTENTION), forks=True), Capacity(64, 8, positions=2048), boundary=None)
    made.submit(Request(PROMPTS[0], 1500, frozenset()))
    for _ in range(7):
        made.submit(Request(PROMPTS[0], 40, frozenset()))
    made.step()
    made.step()
    assert (len(made._active), made.queued) == (8, 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_answers_on_several_shelves_equal_those_alone(name: str) -> None:
    plain, made, most = network(name, "eager"), engine(name, sequences=8), (12, 300, 1100, 12, 300)
    asked = [Request(prompt, most[place], STOP) for place, prompt in enumerate(PROMPTS)]
    said: dict[int, list[int]] = {made.submit(request): [] for request in asked}
    together = 0
    for _ in range(30):
        for delta in made.step():
            said[delta.handle] += [] if delta.token is None else [delta.token]
        together = max(together, len(shelves(made)))
    assert [each[:12] for each in said.values()] == [alone(plain, prompt, 12) for prompt in PROMPTS]
    assert together == 3


def test_places_that_are_free_are_taken_again_or_let_go() -> None:
    plain, made = network("llama", "eager"), engine("llama", sequences=16)
    short, long = Request(PROMPTS[4], 12, STOP), Request(PROMPTS[1], 1100, frozenset())
    for _ in range(2):
        beside = made.submit(long)
        said: dict[int, list[int]] = {made.submit(short): [] for _ in range(14)}
        while len(made._active) != 1:
            for delta in made.step():
                said.setdefault(delta.handle, []).extend([] if delta.token is None else [delta.token])
        del said[beside]
        assert [*said.values()] == [alone(plain, PROMPTS[4], 12)] * 14
        assert taken(made) == held([64])
        made.cancel(beside)
        assert not shelves(made)


def test_who_does_not_fit_is_passed_so_often_and_no_more() -> None:
    made = Engine(Forward(network("llama", ATTENTION), forks=True), Capacity(64, 4, positions=256), boundary=None)
    made.submit(Request(PROMPTS[0], 8, frozenset()))
    made.step()
    large = made.submit(Request(PROMPTS[0], 200, frozenset()))
    begun, said = list[int](), set[int]()
    for _ in range(60):
        while made.queued < 4:  # short ones without end
            made.submit(Request(PROMPTS[0], 8, frozenset()))
        fresh = {delta.handle for delta in made.step()} - said
        said |= fresh
        begun += sorted(fresh)
    assert begun.index(large) == 5  # behind the first, and four that came later
    assert begun[-1] == large  # and has all the room


@pytest.mark.parametrize("name", CONFIGS)
def test_a_long_prompt_is_read_in_portions_while_others_decode(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But whole behind LongRoPE's boundary, where a part would have other factors."""
    read = list[int]()
    step = TreeDecoder.step

    def seen(self: TreeDecoder, prompts: Sequence[Prompt], tokens: Sequence[Next]) -> tuple[list[int], Tensor]:
        read.append(sum(each.new for each in prompts))
        return step(self, prompts, tokens)

    monkeypatch.setattr(TreeDecoder, "step", seen)
    made, plain = engine(name, tokens=32), network(name, "eager")
    long = tuple(3 + 7 * place % 40 for place in range(45))
    said: dict[int, list[int]] = {made.submit(Request(PROMPTS[0], 12, frozenset())): []}
    while made.busy:
        for delta in made.step():
            assert delta.token is not None
            said.setdefault(delta.handle, []).append(delta.token)
        if len(read) == 2:
            asked = [made.submit(Request(prompt, 5, frozenset())) for prompt in (long, PROMPTS[4])]
    assert read[:8] == ([4, 0, 45, 8, 0, 4, 0, 0] if name == "longrope" else [4, 0, 8, 8, 8, 8, 8, 5])
    for handle, prompt, count in zip([*said], (PROMPTS[0], long, PROMPTS[4]), (12, 5, 5), strict=True):
        assert said[handle] == alone(plain, prompt, count, frozenset())
    assert [*said][1:] == asked


def test_who_leaves_while_a_prompt_is_read_leaves_nothing() -> None:
    made = engine("llama", tokens=32)
    made.submit(Request(PROMPTS[0], 12, frozenset()))
    made.step()
    handle = made.submit(Request(tuple(range(3, 40)), 5, STOP))
    made.step()
    made.cancel(handle)
    assert not made.queued
    assert {delta.handle for delta in made.step()} == {handle - 1}


def test_scores_are_each_rows_own() -> None:
    rows = [Example(prompt, (0.0, *[1.0] * (len(prompt) - 1))) for prompt in PROMPTS]
    plain = network("llama", "eager")
    for row, score in zip(rows, engine("llama", tokens=8).score(rows), strict=True):
        with torch.no_grad():
            logprobs = plain(input_ids=torch.tensor([row.tokens])).logits[0, :-1].log_softmax(-1)
        own = logprobs.gather(-1, torch.tensor(row.tokens[1:])[:, None]).sum()
        assert score == pytest.approx(float(own), abs=1e-4)


def test_a_model_that_cannot_fork_decodes_alone() -> None:
    torch.manual_seed(0)
    bloom = (
        AutoModelForCausalLM.from_config(BloomConfig(vocab_size=48, hidden_size=32, n_head=4, n_layer=2)).float().eval()
    )
    made = Engine(Forward(bloom, forks=False), Capacity(64, 3), boundary=None)
    found = {index: tokens for index, tokens, _ in made.run([Request(prompt, 8, STOP) for prompt in PROMPTS])}
    assert found == {index: alone(bloom, prompt, 8) for index, prompt in enumerate(PROMPTS)}


@pytest.mark.parametrize("forks", [True, False])
def test_of_rows_the_end_alone_is_read(forks: bool) -> None:
    engine = Engine(
        Forward(network("llama", ATTENTION if forks else "eager"), forks=forks), Capacity(64, 1), boundary=None
    )
    rows = [*PROMPTS[:3], PROMPTS[0][:1]]
    whole = engine.read(rows, 2)
    for begin in (1, 2):
        for ends, reads in zip(engine.read(rows, 2, begin=begin), whole, strict=True):
            assert [each.token for each in ends] == [each.token for each in reads[begin:]]
            assert [each.logprob for each in ends] == pytest.approx([each.logprob for each in reads[begin:]], abs=1e-5)


def test_a_prompt_longer_than_a_forward_is_read_nevertheless(tmp_path: Path) -> None:
    made = engine("llama", tokens=4)
    assert len(list(made.run([Request(prompt, 2, STOP) for prompt in PROMPTS]))) == len(PROMPTS)


def test_places_are_weighed_a_few_at_a_time_and_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Forward(network("llama", ATTENTION), forks=True)
    engine = Engine(forward, Capacity(64, 2), boundary=None)
    whole = engine.read([PROMPTS[0]], 2)
    monkeypatch.setattr(logprobs, "_WEIGHED", 2)
    assert engine.read([PROMPTS[0]], 2) == whole
