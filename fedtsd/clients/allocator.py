"""Memory that is kept from one training step to the next.

A step frees what it computed, and glibc gives large blocks back to the system, which has to fetch
and clear them again for the next step: in small networks a tenth to a third of the time.
"""

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT_BYTES = 1 << 30
LARGEST_BLOCK = 32 << 20
"""Source: mallopt(3). Larger blocks, such as data, go back to the system at once; some versions of
glibc accept no larger threshold."""


def keep_memory() -> None:
    """Let this process, and those it forks, keep up to 1 GiB of what they free.

    Only where the C library is glibc; elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
