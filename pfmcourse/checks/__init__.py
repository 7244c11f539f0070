"""Checkers of the exercises, one module per lesson: each tries an answer and names the mistake that it looks like."""


class CheckFailed(AssertionError):
    """An answer is not right yet; the message speaks to the learner and says what to look at."""


def passed(text: str) -> None:
    """Say that an answer passed, and what it got right."""
    print(f"Well done: {text}.")
