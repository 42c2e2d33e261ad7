"""Makes names of files out of text that may be anybody's.

Our choice: how long such a name may be.
"""

import re

LONGEST = 60
"""Characters at most: of any script they are less than the 255 bytes that file systems take."""


def file_name(text: str) -> str:
    """Return a name of one file in the folder where it is written: no separator, no control character, no dot in front.

    Examples
    --------
    >>> file_name("svhn/0003")
    'svhn-0003'
    >>> file_name("../../etc/x")
    '-..-etc-x'
    """
    name = re.sub(r"[^\w .-]", "_", text.replace("/", "-")).strip(". ")
    return name[:LONGEST].rstrip(". ") or "_"
