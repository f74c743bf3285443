"""Architectures of distributed machine learning, one module each, written as roles."""

from __future__ import annotations
