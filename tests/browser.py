"""A page in a headless browser."""

import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
OPTIONS += ("--disable-component-update", "--disable-sync", "--enable-logging=stderr")


def visit(path, profile, *options):
    """What the browser prints of the page in a file; the page must open, and its console stay silent."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser is installed: {' or '.join(BROWSERS)}")
    command = [browser, *OPTIONS, f"--user-data-dir={profile}", *options, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout
