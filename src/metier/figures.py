"""Numbers as people read them."""

from __future__ import annotations

from dataclasses import dataclass

_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Habit:
    """How a metric is written and what it says; `factor` turns the stored value into its unit."""

    label: str
    unit: str
    digits: int
    meaning: str
    factor: float = 1.0

    @property
    def of_100(self) -> bool:
        """Whether it stands on a scale from 0 to 100, as it is written."""
        return self.unit in ("%", "of 100")


HABITS = {
    "overall": Habit("overall score", "of 100", 1, "mean over the domains of the primary metric", 100),
    "accuracy": Habit("accuracy", "%", 1, "items answered with the right label", 100),
    "base_accuracy": Habit("accuracy of the base", "%", 1, "the same of the untuned base", 100),
    "macro_f1": Habit("macro F1", "%", 1, "precision and recall in one number, every label counting alike", 100),
    "weighted_f1": Habit("weighted F1", "%", 1, "the same, every label counting by its items", 100),
    "chrf": Habit("chrF", "of 100", 1, "overlap with the wanted answer in runs of 1 to 6 characters"),
    "rouge_l": Habit("ROUGE-L", "of 100", 1, "longest common sequence of words with the wanted answer"),
    "rouge_1": Habit("ROUGE-1", "of 100", 1, "words in common with the wanted answer"),
    "rouge_2": Habit("ROUGE-2", "of 100", 1, "pairs of neighbouring words in common with the wanted answer"),
    "bleu": Habit("BLEU", "of 100", 1, "runs of 1 to 4 words in common with the wanted answers, of all items together"),
    "pass_rate": Habit("pass rate", "%", 1, "answers whose code passes the tests of its row", 100),
    "timeout_rate": Habit("timed out", "%", 1, "answers whose code was still running when its time was over", 100),
    "win_rate": Habit("win rate", "%", 1, "open answers that were preferred; a tie is half of one", 100),
    "agreement": Habit("agreement", "%", 1, "pairs of answers on which two judges say the same", 100),
    "margin": Habit("margin", "nats", 2, "by how much likelier the liked answer is than the other one"),
    "auc": Habit("AUC", "%", 1, "how often a liked answer is likelier than a disliked one; 50 is chance", 100),
    "loss": Habit("loss", "nats a token", 3, "how much the wanted answer surprises the model; 0 is certainty"),
    "base_loss": Habit("loss of the base", "nats a token", 3, "the same of the untuned base"),
    "kl": Habit("KL to the base", "nats a token", 3, "how far the model's predictions have moved from the base's"),
    "stop_rate": Habit("stop rate", "%", 1, "answers that the model ended by itself", 100),
    "flips": Habit("flips", "%", 1, "texts that are not answered alike whomever they name", 100),
    "rate": Habit("rate", "%", 1, "texts answered with the favourable label", 100),
    "impact_ratio": Habit("impact ratio", "of 1", 2, "the lowest group's rate over the highest's"),
    "repetition": Habit("repetition", "%", 1, "runs of four words that stood in the same answer before", 100),
    "length": Habit("length", "words", 1, "mean length of an answer; neither direction is wanted"),
}


def habit(metric: str) -> Habit:
    """A built-in metric's, or that of one that a user brought."""
    return HABITS.get(metric) or Habit(metric, "as it is", 3, "a metric of your own; higher is better")


def figure(metric: str, value: float, *, signed: bool = False) -> str:
    """A value in its metric's unit, the unit itself left out."""
    its = habit(metric)
    return decimal(value * its.factor, its.digits, signed=signed)


def with_unit(metric: str, value: float, *, signed: bool = False) -> str:
    """With its unit where that is short; the others are their metric's habit."""
    return figure(metric, value, signed=signed) + (" %" if habit(metric).unit == "%" else "")


def interval(metric: str, low: float, high: float, *, signed: bool = False) -> str:
    return f"[{figure(metric, low, signed=signed)}, {figure(metric, high, signed=signed)}]"


def money(value: float) -> str:
    """Two places, or two digits of what is smaller; of a currency that the user knows."""
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def as_kept(value: float) -> float:
    """To nine digits, so that another machine's last bits make no difference."""
    return float(f"{value:.9g}")


def decimal(value: float, digits: int, *, signed: bool = False) -> str:
    """With a real minus sign, and never a negative zero."""
    return f"{value:{'+' if signed else ''}z.{digits}f}".replace("-", _MINUS)


def chance(p: float) -> str:
    """A p value that no line break tears; below one in ten thousand its digits say nothing."""
    text = f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def count(number: int) -> str:
    return f"{number:,}"


def sample(n: int, groups: int, noun: str = "item") -> str:
    """What an interval rests on."""
    items = _plural(n, noun)
    return items if groups == n else f"{items} in {_plural(groups, 'group')}"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def latency(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds)


def disk(count: int) -> str:
    """Bytes as disks and download pages count them: in powers of ten."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"


def size(number: float) -> str:
    """Bytes."""
    return f"{number / (1 << 30):.2f} GiB" if number >= 1 << 29 else f"{number / (1 << 20):.0f} MiB"


def _plural(number: int, noun: str) -> str:
    return f"{count(number)} {noun}" + ("s" if number != 1 else "")
