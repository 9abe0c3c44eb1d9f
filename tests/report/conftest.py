"""A headless Chromium for the pages."""

import os
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# WebGL in software: there is no GPU, and no network is wanted.
FLAGS = [
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
]


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None and os.environ.get("CI") != "true":
        pytest.skip("there is no Chromium: apt-get install chromium")
    assert CHROMIUM, "CI has no Chromium"
    from playwright.sync_api import sync_playwright  # of the dev extra, which other tests do without

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens a file in a window of its own; whatever it complains of, or asks of a network, fails the test."""
    troubles, contexts = [], []

    def open_page(path, *, width=1400, scheme="light", fragment="", script=None):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: troubles.append(request.url) if outside(request.url) else None)
        page.goto(path.as_uri() + fragment)
        return page

    def outside(url):
        return not url.startswith(("file:", "data:"))

    open_page.troubles = troubles
    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []
