"""Which node the running code belongs to, where one process holds several."""

from __future__ import annotations

from contextvars import Context, ContextVar

__all__ = ("HERE", "context_of")

HERE: ContextVar[str | None] = ContextVar("rolecall_here", default=None)
"""The name of the node; tasks and timers take it over from who makes them."""


def context_of(node: str) -> Context:
    """Return a context that has nothing in it but which node it belongs to."""
    context = Context()
    context.run(HERE.set, node)
    return context
