from __future__ import annotations

import pytest

from metier.assistant.safety import Safety


@pytest.fixture(scope="session")
def safety() -> Safety:
    return Safety.open()
