"""What the X/Y/Z plot sets for one cell, carried on the `p` of that cell (imports no WebUI)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ON_P = "_animatediff_axes"
"""The attribute of a `p` that holds these values."""


def xyz_values(p: Any) -> Mapping[str, Any]:
    """Returns the parameters that the plot sets for this cell, in place of those of the panel or the request."""
    values: Mapping[str, Any] = vars(p).get(ON_P, {})
    return values
