"""How many files and sockets a process may have open: as many as the host lets it.

A login's soft limit is 1,024, which a proxy with a thousand subscribers reaches; the hard limit is the operator's.
"""

from __future__ import annotations

import resource

OPEN_FILES_MAX = 1 << 20  # more helps nobody, and some programs walk over all that could be open


def raise_limit() -> int:
    """Raise this process's soft limit to the hard one, and so that of its children; returns the limit now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
