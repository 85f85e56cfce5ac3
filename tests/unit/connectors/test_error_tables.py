"""What the docs say of errors is what the code does."""

from __future__ import annotations

from tests.support.error_tables import PAGE, page


def test_the_docs_name_every_error_as_the_code_classes_it() -> None:
    """``docs/errors.md`` holds the connectors' tables; ``python -m tests.support.error_tables`` renews it."""
    assert PAGE.read_text() == page()
