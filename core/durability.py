"""How firmly broker and store keep what they confirm; docs/delivery.md says what each word is worth."""

from __future__ import annotations

from typing import Literal

Durability = Literal["relaxed", "confirmed", "fsync"]
