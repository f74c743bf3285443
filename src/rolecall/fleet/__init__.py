"""Applications and the engines that run them."""

from __future__ import annotations
