"""What stands in front of a question, and what moves in training: every method that a recipe can name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, model_validator

from metier.domain import Strict

Auto = Literal["auto"]
Objective = Literal["sft", "dpo", "kto", "lm", "classify"]
# Every PEFT method but LoRA, under PEFT's own name; a test compares the list with PEFT's registry.
PEFT_METHODS = tuple((Path(__file__).parent / "assets" / "peft_methods.txt").read_text(encoding="utf-8").split())
SCALABLE = ("lora", "qlora", "full", "last-n", "ln_tuning")  # what they train is a change that is added


class Lora(Strict):
    """PEFT's own names and meanings (peft.LoraConfig)."""

    r: Annotated[int, Field(gt=0)] | Auto = Field("auto", description="rank")
    lora_alpha: Annotated[float, Field(gt=0)] | Auto = Field("auto", description="auto: twice r")
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="above 0, rows that share a prefix share its mask"
    )
    target_modules: str | tuple[str, ...] = Field(
        "all-linear", description="names of linear layers, each of which must match"
    )
    exclude_modules: str | tuple[str, ...] | None = Field(None, description="names of layers that stay as they are")
    layers_to_transform: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="numbers of the blocks that are adapted, from 0; all of them without it"
    )
    rank_pattern: Mapping[str, Annotated[int, Field(gt=0)]] | None = Field(
        None, description="name or pattern of a layer = a rank of its own"
    )
    alpha_pattern: Mapping[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, description="name or pattern of a layer = an alpha of its own"
    )
    use_rslora: bool = Field(False, description="scale by alpha / sqrt(r)")
    use_dora: bool = Field(False, description="train each weight's magnitude beside its direction; slower")
    init_lora_weights: (
        bool | Literal["gaussian", "orthogonal", "olora", "pissa"] | Annotated[str, Field(pattern=r"^pissa_niter_\d+$")]
    ) = Field(True, description="true, gaussian, orthogonal, olora, pissa or pissa_niter_16 (a faster one)")
    modules_to_save: tuple[str, ...] | None = Field(
        None, description="modules trained whole beside the adapter, such as lm_head"
    )

    @property
    def begins_in_the_weights(self) -> bool:
        """Whether the adapter begins as a part of the base's own weights, and is converted to plain LoRA at the end."""
        return str(self.init_lora_weights).startswith(("pissa", "olora"))

    @model_validator(mode="after")
    def _one_decomposition(self) -> Self:
        if self.use_dora and self.begins_in_the_weights:
            raise ValueError(
                f"init_lora_weights: {self.init_lora_weights} does not go with use_dora; choose one of them"
            )
        return self


class Shown(Strict):
    """What stands in front of every question."""

    num_fewshot: Annotated[int, Field(ge=0)] = Field(0, description="examples from training rows in front")
    fewshot_sampler: Literal["random", "stratified", "nearest"] = Field(
        "stratified", description="every label in turn, or for each question the nearest by TF-IDF"
    )
    passages: str | None = Field(
        None, description="folder or file (txt, md, jsonl with text) whose nearest passages stand before a question"
    )
    num_passages: Annotated[int, Field(gt=0)] = Field(3, description="passages in front, the nearest by TF-IDF")
    passages_prompt: str = Field(
        "These passages may help:\n\n{passages}\n\n{question}", description="how passages and question are put together"
    )

    @property
    def shows(self) -> bool:
        """Whether anything stands in front."""
        return bool(self.num_fewshot or self.passages)

    @model_validator(mode="after")
    def _both_have_a_place(self) -> Self:
        if any(self.passages_prompt.count(name) != 1 for name in ("{passages}", "{question}")):
            raise ValueError("passages_prompt: needs {passages} and {question}, each once; write both into it")
        return self


class Untuned(Shown):
    """The base as it is."""

    method: Literal["none"]


class Classical(Strict):
    """TF-IDF with a linear SVM for labels, the nearest training answer for open answers."""

    method: Literal["classical"]


class WordList(Strict):
    """Labels by lists of words."""

    method: Literal["word-list"]
    words: str = Field("job-ads", description="job-ads, which ships, or a TOML file; relative to the recipe")


class Price(Strict):
    """What a million tokens cost, in any currency."""

    input: Annotated[float, Field(ge=0)] = Field(description="of tokens read")
    output: Annotated[float, Field(ge=0)] = Field(description="of tokens written")


class Remote(Strict):
    """A chat model behind an OpenAI-compatible address."""

    url: str = Field(description="base address, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, description="the model's name there")
    api_key_env: str | None = Field(None, description="name of the environment variable that holds the key")
    concurrency: Annotated[int, Field(gt=0, le=64)] = Field(4, description="requests at the same time")

    @model_validator(mode="after")
    def _tells_no_secret(self) -> Self:
        """What is wrong is told without its value: it may be a key."""
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise ValueError(
                "api_key_env: is no variable's name in capitals; "
                "write its name, such as OPENAI_API_KEY, and never the key itself"
            )
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url: is no address of http or https; write one such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("url: holds more than an address; name the key's variable with api_key_env")
        return self


class Endpoint(Shown, Remote):
    """A chat model elsewhere, hosted or local, as it answers there."""

    method: Literal["endpoint"]
    price_per_million: Price | None = Field(
        None, description="tokens' price, { input = …, output = … }, in any currency"
    )


class Foreign(Shown):
    """An adapter that PEFT wrote elsewhere, measured as it is."""

    method: Literal["adapter"]
    adapter: str = Field(description="its folder, with adapter_config.json; relative to the recipe")


class Tuned(Shown):
    """What moves, and what training makes likelier."""

    method: str
    objective: Objective | Auto = Field(
        "auto",
        description="sft | dpo | kto | lm | classify; auto: as the data is, answers, pairs, ratings or plain text",
    )
    beta: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of dpo and kto: how strongly the base holds; 0.1 where it is not given"
    )
    scale: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        1.0,
        description="share of the trained change that is kept; auto: as validation recommends, after training at 1",
    )

    @property
    def unscalable(self) -> str:
        """Why a share of what this trains would mean nothing, or ""."""
        if self.objective == "classify" or self.method == "head":
            return "has no meaning for a head that classifies"
        if self.method not in SCALABLE:
            return f"has no meaning with {self.method}, whose change is not a sum on top of the weights"
        if getattr(getattr(self, "peft", None), "use_dora", False):
            return "has no meaning with use_dora, whose magnitudes are no sum on top of the weights"
        return ""

    @model_validator(mode="after")
    def _scale_has_a_meaning(self) -> Self:
        if self.scale != 1 and self.unscalable:
            raise ValueError(f"scale: {self.unscalable}; remove it, or choose {', '.join(SCALABLE)}")
        return self

    @model_validator(mode="after")
    def _beta_has_an_effect(self) -> Self:
        if self.objective in ("sft", "lm", "classify") and self.beta:
            raise ValueError(f"beta: has no effect with objective {self.objective}; remove it")
        return self


class LoraStrategy(Tuned):
    """Low-rank adapters on a base in 16 or 32 bits."""

    method: Literal["lora"]
    peft: Lora = Field(default_factory=Lora)


class QloraStrategy(Tuned):
    """Low-rank adapters on a base stored in few bits: NF4 with double quantisation, or LLM.int8."""

    method: Literal["qlora"]
    quantization_bit: Literal[4, 8] = Field(4, description="bits of a stored weight: 4 (NF4) or 8 (LLM.int8)")
    peft: Lora = Field(default_factory=Lora)

    @model_validator(mode="after")
    def _weights_can_be_decomposed(self) -> Self:
        if self.peft.begins_in_the_weights:
            init = self.peft.init_lora_weights
            raise ValueError(f'peft.init_lora_weights: {init} needs weights of 16 or 32 bits; set method = "lora"')
        return self


class Full(Tuned):
    """Every weight of the base."""

    method: Literal["full"]


class LastN(Tuned):
    """The last transformer blocks, the final norm, and the output head where it is not the embedding."""

    method: Literal["last-n"]
    layers: Annotated[int, Field(gt=0)] = Field(2, description="how many of the last blocks move")


class HeadOnly(Tuned):
    """A head that tells labels apart, on a base that stays as it is."""

    method: Literal["head"]

    @model_validator(mode="after")
    def _classifies(self) -> Self:
        if self.objective not in ("auto", "classify"):
            raise ValueError(
                f'objective: is {self.objective}, but a head classifies; write "classify", or leave it out'
            )
        return self


class PeftStrategy(Tuned):
    """Any other PEFT method by PEFT's own name; its keys are checked against PEFT's config class."""

    peft: Mapping[str, Any] = Field(default_factory=dict)


OWN_METHODS = ("none", "classical", "endpoint", "adapter", "full", "head", "last-n", "lora", "qlora", "word-list")
METHODS = (*OWN_METHODS, *PEFT_METHODS)
MODELLESS = {"classical": "the classical baseline", "word-list": "the word list"}
"""Methods that read no base, and what they are called."""


def _arm(raw: Any) -> Any:
    """Which class a strategy is: its own, or that of all other PEFT methods."""
    method = raw.get("method") if isinstance(raw, Mapping) else getattr(raw, "method", None)
    return "other" if method in PEFT_METHODS else method


Strategy = Annotated[
    Annotated[Untuned, Tag("none")]
    | Annotated[Classical, Tag("classical")]
    | Annotated[WordList, Tag("word-list")]
    | Annotated[Endpoint, Tag("endpoint")]
    | Annotated[Foreign, Tag("adapter")]
    | Annotated[Full, Tag("full")]
    | Annotated[HeadOnly, Tag("head")]
    | Annotated[LastN, Tag("last-n")]
    | Annotated[LoraStrategy, Tag("lora")]
    | Annotated[QloraStrategy, Tag("qlora")]
    | Annotated[PeftStrategy, Tag("other")],
    Discriminator(_arm),
]
