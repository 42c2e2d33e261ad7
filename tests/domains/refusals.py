"""How tests of the readers ask for a refusal."""

import pytest

from fmtda.domains.examples import DataError


def refused(call, match):
    """Assert that a call is refused in one line that says what it should."""
    with pytest.raises(DataError, match=match) as error:
        call()
    assert "\n" not in str(error.value)
