"""Deterministic safety around a model: what is answered before it, what is said behind it, what is blotted out."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, TypeVar, get_args

from metier import personal
from metier.assistant.disclosures import Disclosures
from metier.assistant.likeness import FEWEST, Learned, is_short, lines
from metier.assistant.mood import Kind as MoodKind
from metier.assistant.phrases import Lexicon, Phrases, ends, latest
from metier.assistant.rules import ALONE, ASSETS, Rules, Urgent, read_rules
from metier.assistant.scope import other_business
from metier.assistant.watch import Watch
from metier.files import digest

_LEARNED = "safety"  # folder of the texts that the second layer learns from
_LIKE = "like known emergencies"
_PASSAGE, _BREATH = (35, 10), (8, 4)  # words of what is looked at by itself, and from one to the next
_FOREIGN_LETTERS = 0.4  # of a message's letters, in another script than Latin
_FOREIGN_WORDS = 2  # function words of another language, and more than twice as many as of English

Found = TypeVar("Found")


@dataclass(frozen=True)
class Intervention:
    """What is said instead of a model's answer, and why: the rule and what spoke for it."""

    kind: Literal["emergency", "refusal", "language"]
    rule: str
    because: str
    text: str


@dataclass(frozen=True)
class _Flag:
    name: str
    answer: str
    says: Phrases
    unless: Sequence[Phrases]


@dataclass(frozen=True)
class Safety:
    """The rules of safety.toml, ready to be asked. Safe to share between threads: nothing in it changes."""

    rules: Rules
    lexicon: Lexicon
    flags: Sequence[_Flag]
    denied: re.Pattern[str]
    learned: Learned
    moods: Learned  # emergencies from people who are upset, unhelped or ask for a person
    kinds: Mapping[Urgent, Learned]
    disclosures: Disclosures
    doses: Phrases
    no_doses: Sequence[Phrases]
    digest: str

    @classmethod
    def open(cls, path: Path | None = None) -> Self:
        """The rules that ship, with a file of one's own laid over them. Raises `DataError` with every fault."""
        rules = read_rules(Rules, "safety.toml", path)
        lexicon = rules.lexicon
        urgent = {kind: _lines(rules, kind) for kind in get_args(Urgent)}
        every = [text for listed in urgent.values() for text in listed]
        harmless = [*_lines(rules, "harmless"), *other_business()]
        moods = [text for kind in get_args(MoodKind) for text in lines(ASSETS / "mood" / f"{kind}.txt")]
        return cls(
            rules,
            lexicon,
            _flags(rules, lexicon),
            _denied(rules.negations, lexicon),
            Learned.fit(every, harmless, lexicon),
            Learned.fit(every, moods, lexicon),
            Learned.fit_each(urgent, (), lexicon),
            Disclosures.of(rules.secret),
            lexicon.phrases(rules.doses.says),
            [lexicon.group(name) for name in rules.doses.unless],
            digest([rules.model_dump(mode="json"), urgent, harmless, moods]),
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that the rules cover; serving names the others when it starts."""
        return self.rules.languages

    def is_medical(self, *domains: str) -> bool:
        """Whether any of these is."""
        return any("medical" in self._kinds(domain) for domain in domains)

    def is_banking(self, *domains: str) -> bool:
        """Whether any of these is."""
        return any("banking" in self._kinds(domain) for domain in domains)

    def knows(self, domain: str) -> bool:
        """Whether its name, or a file of one's own, tells what a domain is about."""
        return domain in self.rules.domains or any(self._kinds(domain))

    def before(
        self,
        said: str,
        *domains: str,
        among: Sequence[str] = (),
        unanswered: Sequence[str] = (),
        answered: str = "",
    ) -> Intervention | None:
        """What to answer without asking a model, or None; `domains` are those to which it may belong, `among` further
        ones for which it may have been meant.

        `unanswered` is what the same person said since the last answer, oldest first, and counts as said now: each of
        it alone, and all of it together. `answered` is the last that they said before that. Red flags come first, in
        any domain; then payment cards, and other secrets where any of all is banking; then languages that are not
        covered, in medicine. Of a long message the beginning and the end are read, of many the latest.
        """
        now = [*latest(unanswered), ends(said)]
        return (
            self._emergency(now, ends(answered))
            or self._refusal("\n".join(now), [*domains, *among])
            or _first(self._foreign(each, domains) for each in now)
        )

    def behind(self, *domains: str) -> Watch:
        """What an answer that may belong to any of these domains passes through on its way to the reader."""
        if not self.is_medical(*domains):
            return Watch()
        return Watch(self.gives_dose, self.rules.answers.dosage, self.rules.answers.notice)

    def declined(self, domains: Sequence[str]) -> str:
        """What to say to a question that belongs to none of these."""
        return self._naming(domains, self.rules.answers.declined)

    def asked_back(self, domains: Sequence[str]) -> str:
        """What to say to a question that may belong to any of these."""
        return self._naming(domains, self.rules.answers.unsure)

    def _naming(self, domains: Sequence[str], text: str) -> str:
        *others, last = domains
        listed = f"{', '.join(others)} and {last}" if others else last
        numbers = self.rules.answers.numbers if self.is_medical(*domains) else ""
        return text.replace("{domains}", listed).replace("{numbers}", numbers).rstrip()

    def masked(self, text: str) -> str:
        """The text as it may be stored: secrets and personal data blotted out."""
        return personal.masked(self.disclosures.masked(text))

    def gives_dose(self, sentence: str) -> bool:
        normal = self.lexicon.normal(sentence)
        return bool(self.doses.within(normal)) and not any(each.within(normal) for each in self.no_doses)

    def covers(self, said: str) -> bool:
        """Whether the rules cover what a message is probably written in, by its beginning and end."""
        return self.language(ends(said)) in self.languages

    def language(self, said: str) -> str:
        """What a message is probably written in: English also where nothing speaks for another language."""
        letters = [letter for letter in said if letter.isalpha()]
        foreign = [letter for letter in letters if "LATIN" not in unicodedata.name(letter, "LATIN")]
        if len(foreign) > _FOREIGN_LETTERS * len(letters):
            return unicodedata.name(foreign[0]).split()[0].capitalize()
        words = Counter(re.findall(r"[^\W\d_]+", said.casefold()))
        known = {name: sum(words[word] for word in listed) for name, listed in self._function_words.items()}
        best = max(known, key=lambda name: known[name])
        return best if known[best] >= _FOREIGN_WORDS and known[best] > 2 * known["English"] else "English"

    def _emergency(self, now: Sequence[str], answered: str) -> Intervention | None:
        """In any of what was said now, in all of it, or behind what was said before unless that was answered as one."""
        together = "\n".join(now)
        found = _first(map(self._urgent, reversed(now)))
        if len(now) > 1:
            found = found or (self._flagged if any(map(self._tells, now)) else self._urgent)(together)
        if answered and not self._flagged(answered):
            found = found or self._flagged(f"{answered}\n{together}")
        if found is None:
            return None
        rule, because, answer = found
        text = getattr(self.rules.answers, answer).strip()
        if answer != "crisis" and self._despairs(together):
            text = f"{text}\n\n{self.rules.answers.crisis.strip()}"
        return Intervention("emergency", rule, because, text)

    def _despairs(self, said: str) -> bool:
        """Whether a phrase speaks of wanting to die, whatever else has happened."""
        return any(flag.answer == "crisis" for flag, _ in self._speaking(said))

    def _urgent(self, said: str) -> tuple[str, str, str] | None:
        if kind := self._alone.get(self._bare(said)):
            return ALONE, said.strip(), kind
        margin = self.learned.margin(said)
        return self._flagged(said, margin) or (self._like(said, margin) if self._tells(said) else None)

    def _tells(self, said: str) -> bool:
        """Whether there are words enough to be like others, the same again counted once."""
        return len({*self._bare(said).split()}) >= FEWEST

    def _bare(self, said: str) -> str:
        return self.lexicon.normal(said).replace("| ", "")

    def _flagged(self, said: str, margin: float = math.inf) -> tuple[str, str, str] | None:
        """The first rule that speaks and that no such margin overrules, what it was by, and which text answers it."""
        like = self.rules.likeness
        overruled = like.overrules if margin < like.veto else ()
        speaking = (each for each in self._speaking(said) if each[0].name not in overruled)
        return _first((flag.name, because, flag.answer) for flag, because in speaking)

    def _speaking(self, said: str) -> Iterator[tuple[_Flag, str]]:
        """The rules that speak, and what each is by."""
        normal = self.lexicon.normal(said)
        for flag in self.flags:
            because = flag.says.within(normal, self.denied)
            if because and not any(each.within(normal) for each in flag.unless):
                yield flag, because

    def _like(self, said: str, margin: float) -> tuple[str, str, str] | None:
        """Whether all of a message, or a passage in the midst of other talk, is like known emergencies."""
        like = self.rules.likeness
        least = like.short if is_short(said) else like.threshold
        heard = said if margin > least and self._grave(said) else self._buried(said)
        if not heard or not self.covers(said):
            return None
        return (
            _LIKE,
            f"{', '.join(self.learned.loudest(heard))} (margin {self.learned.margin(heard):.2f})",
            max(self.kinds, key=lambda kind: self.kinds[kind].margin(heard)),
        )

    def _grave(self, said: str) -> bool:
        """Whether it is no mood alone: all of it or some words in a row, for the upset may be in need, too."""
        like, parts = self.rules.likeness, [said, *_passages(said, *_BREATH)]
        return bool(((self.learned.margins(parts) > like.threshold) & (self.moods.margins(parts) > like.mood)).any())

    def _buried(self, said: str) -> str:
        """The passage of a message that is most like known emergencies, where it is enough so; "" of a short one."""
        if not (passages := _passages(said, *_PASSAGE)):
            return ""
        margins = self.learned.margins(passages)
        return passages[margins.argmax()] if margins.max() > self.rules.likeness.buried else ""

    def _refusal(self, said: str, domains: Sequence[str]) -> Intervention | None:
        find = self.disclosures.find if self.is_banking(*domains) else self.disclosures.payment_cards
        names = " and ".join(dict.fromkeys(each.kind for each in find(said)))
        if not names:
            return None
        return Intervention("refusal", "secrets", names, self.rules.answers.secret.replace("{found}", names))

    def _foreign(self, said: str, domains: Sequence[str]) -> Intervention | None:
        if not self.is_medical(*domains) or (language := self.language(said)) in self.languages:
            return None
        answers = self.rules.answers
        text = answers.language.replace("{languages}", ", ".join(self.languages)).replace("{numbers}", answers.numbers)
        return Intervention("language", "languages", language, text)

    def _kinds(self, domain: str) -> Iterator[str]:
        if domain in self.rules.domains:
            yield from self.rules.domains[domain]
            return
        for kind, patterns in self.rules.kinds.items():
            if any(fnmatchcase(domain.casefold(), pattern) for pattern in patterns):
                yield kind

    @cached_property
    def _alone(self) -> Mapping[str, Urgent]:
        listed = {} if ALONE in self.rules.off else self.rules.alone
        return {self._bare(each): kind for kind, texts in listed.items() for each in texts}

    @cached_property
    def _function_words(self) -> Mapping[str, frozenset[str]]:
        return {name: frozenset(listed.split()) for name, listed in self.rules.other_languages.items()}


def _passages(said: str, length: int, further: int) -> list[str]:
    """So many words in a row, of a message that has more: among others even an emergency is hardly heard."""
    words = said.split()
    begins = range(0, len(words) - length + further, further) if len(words) > length else ()
    return [" ".join(words[begin : begin + length]) for begin in begins]


def _first(found: Iterable[Found | None]) -> Found | None:
    return next((each for each in found if each is not None), None)


def _lines(rules: Rules, kind: Urgent | Literal["harmless"]) -> list[str]:
    """What the second layer learns from, of one kind."""
    return [*lines(ASSETS / _LEARNED / f"{kind}.txt"), *rules.likeness.lines.get(kind, ())]


def _flags(rules: Rules, lexicon: Lexicon) -> list[_Flag]:
    return [
        _Flag(each.name, each.answer, lexicon.phrases(each.says), [lexicon.group(name) for name in each.unless])
        for each in rules.red_flag
        if each.name not in rules.off
    ]


def _denied(negations: Sequence[str], lexicon: Lexicon) -> re.Pattern[str]:
    """Matches what stands in front of a phrase that is denied; one word may stand between."""
    return re.compile(rf"(?<= )(?:{'|'.join(lexicon.normal(each).strip() for each in negations)}) (?:[^\s|]+ )?$")
