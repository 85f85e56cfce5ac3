"""Looks whether a published output is whole, untouched and readable; changes nothing."""

from __future__ import annotations
