"""What texts systemd and the kernel can carry."""

import re

# MAX_ARG_STRLEN, see execve(2): one argument or environment string with its NUL.
STRING_LIMIT = 128 * 1024
SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+@:,=~-]*")
# Noncharacters of Unicode, which programs can be given, and systemd refuses.
REFUSED = "\ufdd0-\ufdef" + "".join(
    chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)
)
