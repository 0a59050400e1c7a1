"""The wire: bytes into calls of the manager, and its results or errors into answers."""

import sys
from pathlib import Path

# The service speaks its own copy of the schema, whatever else is installed.
if "druncschema" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).parents[1] / "_schema"))
