"""Simulation: virtual time, a modelled network, faults by seed, and exact replay."""

from __future__ import annotations
