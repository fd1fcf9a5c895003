"""What the tests of the execution room share."""

import pytest

from tests.execution.forge import Forge


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge()
