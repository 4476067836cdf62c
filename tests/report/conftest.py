"""A browser for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chromium import Browser, browser, find_chromium


@pytest.fixture(scope="session")
def shared_tab() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("no Chromium is installed")
    with browser() as tab:
        yield tab


@pytest.fixture
def tab(shared_tab: Browser) -> Browser:
    """A tab of headless Chromium without memories of the test before; skipped without a Chromium."""
    shared_tab.renew()
    shared_tab.size(1280, 860)
    return shared_tab
