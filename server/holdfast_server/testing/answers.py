"""Whether something answers, for whoever waits for it."""

from __future__ import annotations

import urllib.error
import urllib.request


def answers(url: str, timeout_seconds: float) -> bool:
    """With 2xx.  An answer that says no is an open connection all the same, and is closed here: Python 3.14 warns where
    that is left to the garbage collector."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False
