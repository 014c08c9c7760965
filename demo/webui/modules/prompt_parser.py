"""Prompts over the steps of a run: `[from:to:when]`, parts joined by `AND`, and emphasis in parentheses."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Encode = Callable[[list[str]], torch.Tensor]
"""Texts to `(texts, tokens, width)`."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_EDIT = re.compile(r"\[(?:([^\[\]:]*):)?([^\[\]:]*):\s*(\d+\.?\d*|\.\d+)\s*\]")
_WEIGHTED_PART = re.compile(rf"(.*?)(?:\s*:\s*({_NUMBER}))?\s*", re.DOTALL)
_EMPHASIS = re.compile(rf"\\.|[()\[\]]|:\s*({_NUMBER})\s*\)|[^\\()\[\]:]+|:")


@dataclass
class ScheduledPromptConditioning:
    end_at_step: int
    cond: torch.Tensor


@dataclass
class ComposableScheduledPromptConditioning:
    schedules: list[ScheduledPromptConditioning]
    weight: float = 1.0


@dataclass
class MulticondLearnedConditioning:
    """For every picture of a batch, its parts joined by AND."""

    shape: tuple[int]
    batch: list[list[ComposableScheduledPromptConditioning]]


def texts_over_steps(prompt: str, steps: int) -> list[tuple[int, str]]:
    """What the prompt reads up to and including each of some steps, of which the last is `steps`."""

    def step_of(when: str) -> int:
        return min(steps, int(float(when) * steps) if "." in when else int(when))

    def read_at(step: int) -> str:
        text, edits = prompt, 1
        while edits:  # the innermost first
            text, edits = _EDIT.subn(lambda m: (m[1] or "") if step <= step_of(m[3]) else m[2], text)
        return text

    ends = sorted(
        {step_of(match[3]) for match in _EDIT.finditer(prompt)} - {0} | _ends_of_outer_edits(prompt, step_of) | {steps}
    )
    return [(end, read_at(end)) for end in ends]


def _ends_of_outer_edits(prompt: str, step_of: Callable[[str], int]) -> set[int]:
    return {step_of(when) for when in re.findall(r":\s*(\d+\.?\d*|\.\d+)\s*\]", prompt)} - {0}


def get_learned_conditioning(encode: Encode, prompts: Sequence[str], steps: int) -> list[list[ScheduledPromptConditioning]]:
    """One schedule per prompt; equal prompts are encoded once."""
    known: dict[str, list[ScheduledPromptConditioning]] = {}
    for prompt in prompts:
        if prompt not in known:
            schedule = texts_over_steps(prompt, steps)
            encoded = encode([text for _, text in schedule])
            known[prompt] = [ScheduledPromptConditioning(end, cond) for (end, _), cond in zip(schedule, encoded)]
    return [known[prompt] for prompt in prompts]


def get_multicond_learned_conditioning(encode: Encode, prompts: Sequence[str], steps: int) -> MulticondLearnedConditioning:
    parts = [_parts_of(prompt) for prompt in prompts]
    texts = list(dict.fromkeys(text for of_prompt in parts for text, _ in of_prompt))
    schedules = dict(zip(texts, get_learned_conditioning(encode, texts, steps)))
    batch = [[ComposableScheduledPromptConditioning(schedules[text], weight) for text, weight in of] for of in parts]
    return MulticondLearnedConditioning((len(prompts),), batch)


def _parts_of(prompt: str) -> list[tuple[str, float]]:
    matches = (_WEIGHTED_PART.fullmatch(part) for part in re.split(r"\bAND\b", prompt))
    return [(match[1], float(match[2] or 1.0)) for match in matches if match]


def reconstruct_cond_batch(conds: list[list[ScheduledPromptConditioning]], step: int) -> torch.Tensor:
    """What holds at `step`, counted from 0: `(prompts, tokens, width)`."""
    return torch.stack([_at_step(schedule, step) for schedule in conds])


def reconstruct_multicond_batch(
    conds: MulticondLearnedConditioning, step: int
) -> tuple[list[list[tuple[int, float]]], torch.Tensor]:
    """For each picture the rows of its parts with their weights; and those rows, picture by picture.

    Shorter rows are made as long as the longest by repeating their last token.
    """
    rows: list[torch.Tensor] = []
    indexes: list[list[tuple[int, float]]] = []
    for parts in conds.batch:
        indexes.append([(len(rows) + offset, part.weight) for offset, part in enumerate(parts)])
        rows += [_at_step(part.schedules, step) for part in parts]
    length = max(len(row) for row in rows)
    rows = [torch.cat([row, row[-1:].repeat(length - len(row), 1)]) for row in rows]
    return indexes, torch.stack(rows)


def _at_step(schedule: list[ScheduledPromptConditioning], step: int) -> torch.Tensor:
    return next((entry.cond for entry in schedule if step <= entry.end_at_step), schedule[-1].cond)


def parse_prompt_attention(text: str) -> list[tuple[str, float]]:
    """Pieces of a prompt and how strongly each counts.

    `(a)` counts 1.1 times, `[a]` 1/1.1 times, `(a:1.3)` 1.3 times; `\\(` is a parenthesis.
    """
    pieces: list[tuple[str, float]] = []
    open_round: list[int] = []
    open_square: list[int] = []

    def multiply(start: int, factor: float) -> None:
        pieces[start:] = [(piece, weight * factor) for piece, weight in pieces[start:]]

    for match in _EMPHASIS.finditer(text):
        token, number = match[0], match[1]
        if token == "(":
            open_round.append(len(pieces))
        elif token == "[":
            open_square.append(len(pieces))
        elif number is not None and open_round:
            multiply(open_round.pop(), float(number))
        elif token == ")" and open_round:
            multiply(open_round.pop(), 1.1)
        elif token == "]" and open_square:
            multiply(open_square.pop(), 1 / 1.1)
        else:
            pieces.append((token.removeprefix("\\") if len(token) > 1 else token, 1.0))
    for start in open_round:
        multiply(start, 1.1)
    for start in open_square:
        multiply(start, 1 / 1.1)
    return _merged(pieces) or [("", 1.0)]


def _merged(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    merged: list[tuple[str, float]] = []
    for piece, weight in pieces:
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + piece, weight)
        else:
            merged.append((piece, weight))
    return merged
