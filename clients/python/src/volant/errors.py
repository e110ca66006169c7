"""What can go wrong, with what the service said about it."""

from __future__ import annotations

import json
from typing import Any


class VolantError(Exception):
    """The service refused a request.

    ``status`` is the HTTP status, ``code`` the service's stable word for the reason (``bad_statement``, ``time_limit``, …).
    ``position`` is ``(line, column)`` in a statement, both from 1, where the service knows it; ``hint`` says what to do.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str = "",
        position: tuple[int, int] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(detail if hint is None else f"{detail} ({hint})")
        self.detail = detail
        self.status = status
        self.code = code
        self.position = position
        self.hint = hint

    @classmethod
    def of_answer(cls, status: int, body: bytes) -> VolantError:
        """The error that an answer of the service (RFC 9457) describes."""
        try:
            problem: dict[str, Any] = json.loads(body)
        except ValueError:
            problem = {}
        place = problem.get("position")
        return cls(
            str(problem.get("detail") or body[:200].decode(errors="replace") or f"status {status}"),
            status=status,
            code=str(problem.get("code", "")),
            position=(place["line"], place["column"]) if place else None,
            hint=problem.get("hint"),
        )


class Unreachable(VolantError):
    """Nobody answers at the address, or the answer was cut: a part is never given out as the whole."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, status=0, code="unreachable", hint="is the service running? volant serve starts it")
