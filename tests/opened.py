"""What ships around a model, opened once: nothing in it changes."""

from __future__ import annotations

from functools import cache

from metier.assistant.mood import Moods
from metier.assistant.safety import Safety

safety, moods = cache(Safety.open), cache(Moods.open)
