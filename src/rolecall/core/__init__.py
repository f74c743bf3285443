"""What a role is: channels, elements, relationships, state, ids, errors and the Tensors value. No input or output."""

from __future__ import annotations
