"""What a node does: mailboxes, dispatch, calls, topics, life cycle."""

from __future__ import annotations
