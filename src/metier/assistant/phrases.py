"""A small language of phrases that people can read, and messages made ready to be searched for them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from metier.errors import nearest

_TOKEN = re.compile(r"[^\W\d_]+|\d+(?:[.,:/]\d+)*|[.!?;\n]")
_ENDS = frozenset(".!?;\n")
_STOP = "|"  # between sentences
_LONG = re.compile(r"(.)\1{2,}")
_TYPO = 7  # letters; shorter words have neighbours that are words themselves
_FAR = 100  # characters in front of a phrase in which it may be denied: the longest negation and a word
_READ = 10_000  # characters at each end of a message; what comes before a model may not take long
_GAPS = {"..": 3, "...": 8}
_TENS = r"ten|eleven|twelve|[a-z]{3,5}teen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|dozens?"
_BUILT_IN = {
    "number": rf"(?:\d[^\s|]*|an?|one|two|three|four|five|six|seven|eight|nine|few|couple|several|{_TENS}) ",
    "many": rf"(?:[1-9]\d+|{_TENS}) ",
}
_WORD = r"(?:<[\w ]+>|[^\s<>\[\]()+|/]+)"
_ELEMENT = re.compile(
    rf"(?P<gap>\.{{2,3}})(?!\S)|\[(?P<maybe>[^\[\]]+)\]|\((?P<either>[^()]+)\)|(?P<words>{_WORD}(?:/{_WORD})*)(?!\S)"
)


@dataclass(frozen=True)
class Lexicon:
    """Named lists of phrases, which others mention as `<name>`, and other spellings: what is typed → what is meant."""

    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spelling: Mapping[str, str] = field(default_factory=dict)

    def __reduce__(self) -> tuple[type[Lexicon], tuple[Any, ...]]:
        """Another process makes by itself what it needs of it."""
        return Lexicon, (self.groups, self.spelling)

    def normal(self, text: str) -> str:
        """Words in lower case between single spaces, without apostrophes, each spelled as the lists have it, and `|`
        between sentences; it begins and ends with a space."""
        words: list[str] = []
        for token in _TOKEN.findall(_plain(text)):
            words += [_STOP] if token in _ENDS else self._meant(token).split()
        return f" {' '.join(words)} "

    def compiled(self, phrase: str) -> Phrase:
        """Raises `ValueError` that tells problem; remedy."""
        if phrase not in self._phrases:
            parts = [part.strip() for part in phrase.split(" + ")]
            patterns = tuple(re.compile(f"(?<= ){self._pattern(part, ())}") for part in parts)
            self._phrases[phrase] = Phrase(phrase, patterns)
        return self._phrases[phrase]

    def group(self, name: str) -> Phrases:
        return self.phrases(self.groups[name])

    def phrases(self, listed: Iterable[str]) -> Phrases:
        return Phrases(tuple(map(self.compiled, dict.fromkeys(listed))))

    def _pattern(self, part: str, within: tuple[str, ...]) -> str:
        if not part:
            raise ValueError(f"{part!r} is empty; write some words")
        rest = _ELEMENT.sub("", part).strip()
        if rest:
            raise ValueError(
                f"{part!r} has a stray {rest[:10]!r}; see the head of safety.toml for what a phrase may be"
            )
        return "".join(self._element(match, within) for match in _ELEMENT.finditer(part))

    def _element(self, match: re.Match[str], within: tuple[str, ...]) -> str:
        if match["gap"]:
            return rf"(?:[^\s|]+ ){{0,{_GAPS[match['gap']]}}}"
        if match["maybe"]:
            return f"(?:{self._pattern(match['maybe'], within)})?"
        if match["either"]:
            return f"(?:{'|'.join(self._pattern(each, within) for each in match['either'].split('|'))})"
        options = [self._word(word, within) for word in re.findall(_WORD, match["words"])]
        return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"

    def _group(self, name: str, within: tuple[str, ...]) -> str:
        if name in _BUILT_IN:
            return _BUILT_IN[name]
        if name not in self.groups:
            raise ValueError(f"<{name}> is no list{nearest(name, self.groups)}; add it under [lists]")
        if name in within:
            raise ValueError(f"<{name}> contains itself; take it out of one of the lists")
        if name not in self._patterns:
            listed = (self._pattern(each, (*within, name)) for each in self.groups[name])
            self._patterns[name] = f"(?:{'|'.join(listed)})"
        return self._patterns[name]

    def _word(self, word: str, within: tuple[str, ...]) -> str:
        """One word, a star standing for any ending, or any phrase of a list."""
        if word.startswith("<"):
            return self._group(word[1:-1], within)
        stem = word.rstrip("*")
        stem = stem if stem[:1].isdigit() else self.normal(stem).strip()
        if not stem or _STOP in stem:
            raise ValueError(f"{word!r} is no word; write letters, and / between alternatives")
        return re.escape(stem).replace(r"\ ", " ") + (r"[^\s|]*" if word.endswith("*") else "") + " "

    @cached_property
    def _phrases(self) -> dict[str, Phrase]:
        """Those that were compiled."""
        return {}

    @cached_property
    def _patterns(self) -> dict[str, str]:
        """Those of lists that were mentioned."""
        return {}

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        listed = (phrase for phrases in self.groups.values() for phrase in phrases)
        return frozenset(word for phrase in listed for word in re.findall(r"[^\W\d_]{3,}", _plain(phrase)))

    @cached_property
    def _neighbours(self) -> Mapping[str, str]:
        """Each word of the lists by what is left of it without one of its letters."""
        long = sorted(word for word in self._vocabulary if len(word) >= _TYPO)
        return {cut: word for word in long for cut in (word, *_cuts(word))}

    def _meant(self, token: str) -> str:
        if token in self.spelling:
            return self.spelling[token]
        if _LONG.search(token):
            options = (_LONG.sub(r"\1\1", token), _LONG.sub(r"\1", token))
            token = next((each for each in options if each in self._vocabulary or each in self.spelling), options[-1])
            return self.spelling.get(token, token)
        if len(token) < _TYPO - 1 or token in self._vocabulary:
            return token
        return next((self._neighbours[each] for each in (token, *_cuts(token)) if self._near(token, each)), token)

    def _near(self, token: str, cut: str) -> bool:
        """One letter too many, too few or another one, or two in the wrong order; the first is right."""
        word = self._neighbours.get(cut, "")
        inflected = token.rstrip("sdy") == word.rstrip("sdy")
        return bool(word) and len(word) >= _TYPO and word[0] == token[0] and not inflected


@dataclass(frozen=True)
class Phrase:
    """Patterns over a normal text, each of which must occur."""

    written: str
    patterns: tuple[re.Pattern[str], ...]

    def within(self, normal: str, denied: re.Pattern[str] | None = None) -> bool:
        """Whether each part occurs somewhere, not only where `denied` matches what stands in front of it."""
        return all(any(_counts(normal, m.start(), denied) for m in each.finditer(normal)) for each in self.patterns)

    def said(self, normal: str) -> str:
        """The words that it is, of a text in which it occurs."""
        return " … ".join(found[0].replace("|", "").strip() for each in self.patterns if (found := each.search(normal)))


def _counts(normal: str, at: int, denied: re.Pattern[str] | None) -> bool:
    return denied is None or not denied.search(normal, max(0, at - _FAR), at)  # for which the text ends there


@dataclass(frozen=True)
class Phrases:
    """Of which one is enough."""

    listed: tuple[Phrase, ...]

    def within(self, normal: str, denied: re.Pattern[str] | None = None) -> str:
        """The first that occurs, as it is written, or ""."""
        return next((each.written for each in self.listed if each.within(normal, denied)), "")

    def said(self, normal: str) -> str:
        """The words that the first is which occurs, or ""."""
        return next((each.said(normal) for each in self.listed if each.within(normal)), "")


def ends(text: str) -> str:
    """What is read of a message: all of it, or of a long one the beginning and the end."""
    return text if len(text) <= 2 * _READ else f"{text[:_READ]}\n{text[-_READ:]}"


def latest(turns: Sequence[str]) -> list[str]:
    """What is read of all that somebody said, oldest first: the last, and of those before no more than of one."""
    read, left = list[str](), 2 * _READ
    for turn in reversed(turns):
        if left <= 0:
            break
        read.append(ends(turn))
        left -= len(read[-1])
    return read[::-1]


def _plain(text: str) -> str:
    """Lower case, one kind of apostrophe and none within a word: can't → cant, baby's → baby is."""
    lower = re.sub("[’‘`´]", "'", unicodedata.normalize("NFKC", text).casefold())
    return re.sub(r"(?<=\w)'(?=\w)", "", re.sub(r"(?<=\w)'s\b", " is", lower))


def _cuts(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place in range(1, len(word))]
