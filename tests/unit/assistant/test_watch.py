from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from metier.assistant import watch
from metier.assistant.safety import Safety
from metier.assistant.watch import Watch

DOSES = """
Take 500 mg of paracetamol.
You can take two tablets every six hours.
The usual dose is 1-2 capsules daily.
Give 5 ml of the syrup.
Up to 4,000 milligrams a day is the limit.
One tablet twice a day should do.
Try 200mg ibuprofen with food.
Use two puffs of the reliever.
Half a tablet at night is enough.
Take it every 4 to 6 hours.
Take the antihistamine once a day.
Inject 10 units of insulin.
Chew one aspirin.
Take 1 gram of paracetamol four times daily.
The maximum is 8 tablets in 24 hours.
Give your child 2.5 ml of paracetamol suspension.
25 mcg of the tablet is common.
Ten drops of the oral solution help.
Paracetamol 15 mg/kg is usual.
Two every four hours is common.
""".strip().splitlines()
NO_DOSES = """
Drink plenty of water, about two litres a day.
Rest for two to three days.
See a doctor if it lasts longer than a week.
A fever above 38.5 needs a doctor within 24 hours.
Paracetamol may help with the pain.
Ask your pharmacist which medicine suits you.
Cool the burn under running water for 20 minutes.
Walk for 30 minutes a day.
Call your doctor today if you are pregnant.
Most colds end within ten days.
Change the plaster every day.
Do you take any tablets?
If it has been going on for more than three weeks, have it checked.
Keep the leg raised and use a cold pack.
Your blood pressure of 145 over 90 is a little high.
Children get six to eight colds a year.
""".strip().splitlines()


@pytest.mark.parametrize("sentence", DOSES)
def test_a_dose_is_withheld(safety: Safety, sentence: str) -> None:
    assert safety.gives_dose(sentence)


@pytest.mark.parametrize("sentence", NO_DOSES)
def test_other_advice_is_not(safety: Safety, sentence: str) -> None:
    assert not safety.gives_dose(sentence)


def test_the_first_dose_is_replaced_the_others_go_and_a_notice_stands_below(safety: Safety) -> None:
    answer = "Rest well. Take 400 mg of ibuprofen. Then 2 tablets at night. Drink tea."
    told = safety.behind("medical").whole(answer)
    rules = safety.rules.answers
    assert told == f"Rest well. {rules.dosage} Drink tea.\n\n{rules.notice}"


def test_however_an_answer_is_cut_into_pieces_it_reads_the_same(safety: Safety) -> None:
    answer = "It is 3.5 days, e.g. a cold.\n\n1. Take 400 mg!  Rest.\n2. Give 5 ml syrup… Dr. Lee agrees?\nSee one"
    whole = safety.behind("health-advice").whole(answer)
    assert "400" not in whole
    assert "5 ml" not in whole
    draw = random.Random(7)
    for _ in range(200):
        watch, shown, rest = safety.behind("health-advice"), "", answer
        while rest:
            length = draw.randint(1, 9)
            shown, rest = shown + watch.push(rest[:length]), rest[length:]
        assert shown + watch.end() == whole


def test_where_no_sentence_ends_is_looked_at_once(safety: Safety, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that goes round in circles says abbreviations for ever."""
    seen, known = list[str](), watch._ABBREVIATED
    search = SimpleNamespace(search=lambda text: seen.append(text) or known.search(text))
    monkeypatch.setattr(watch, "_ABBREVIATED", search)
    made = safety.behind("medical")
    assert not "".join(made.push(" e.g.") for _ in range(500))
    assert len(seen) < 510
    assert max(map(len, seen)) < 100
    assert made.push(" tea. Rest") == " e.g." * 500 + " tea. "


def test_at_most_a_sentence_is_held_back(safety: Safety) -> None:
    watch = safety.behind("medical")
    assert watch.push("Rest for a day. Take 4") == "Rest for a day. "
    assert watch.push("00 mg of ibuprofen. And") == f"{safety.rules.answers.dosage} "
    assert watch.withheld == 1


def test_an_empty_answer_gets_the_notice_alone(safety: Safety) -> None:
    assert safety.behind("medical").end() == safety.rules.answers.notice


def test_outside_medicine_everything_passes_at_once(safety: Safety) -> None:
    watch = safety.behind("telecom")
    assert watch.push("Take 400 mg") == "Take 400 mg"
    assert watch.end() == ""
    assert Watch().whole("500 mg. ") == "500 mg. "
