from __future__ import annotations

import pytest

from metier.assistant.safety import Safety
from tests import opened


@pytest.fixture(scope="session")
def safety() -> Safety:
    return opened.safety()
