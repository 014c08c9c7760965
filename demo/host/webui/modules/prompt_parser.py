"""Stands in for `modules.prompt_parser`: prompt editing `[from:to:when]`, parts joined by `AND`, and `(emphasis)`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

Encode = Callable[[list[str]], torch.Tensor]
"""Encodes texts as `(texts, tokens, width)`."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_EDIT = re.compile(r"\[(?:([^\[\]:]*):)?([^\[\]:]*):\s*(\d+\.?\d*|\.\d+)\s*\]")
_WEIGHTED_PART = re.compile(rf"(.*?)(?:\s*:\s*({_NUMBER}))?\s*", re.DOTALL)
_EDIT_END = re.compile(r":\s*(\d+\.?\d*|\.\d+)\s*\]")
_TOKENS = re.compile(rf"\\.|:\s*{_NUMBER}\s*\)|[()\[\]:\\]|[^()\[\]:\\]+", re.DOTALL)
_FACTORS = {"": 1.0, "(": 1.1, "[": 1 / 1.1}


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
    """The parts joined by AND, for each picture of a batch."""

    shape: tuple[int]
    batch: list[list[ComposableScheduledPromptConditioning]]


def texts_over_steps(prompt: str, steps: int) -> list[tuple[int, str]]:
    """Returns the last step of each version of an edited prompt, with its text. The last version ends at `steps`."""

    def step_of(when: str) -> int:
        return min(steps, int(float(when) * steps) if "." in when else int(when))

    def read_at(step: int) -> str:
        text, edits = prompt, 1
        while edits:  # the innermost first
            text, edits = _EDIT.subn(lambda m: (m[1] or "") if step <= step_of(m[3]) else m[2], text)
        return text

    ends = {step_of(when) for when in _EDIT_END.findall(prompt)}
    return [(end, read_at(end)) for end in sorted(ends - {0} | {steps})]


def get_learned_conditioning(encode: Encode, prompts: Sequence[str], steps: int) -> list[list[ScheduledPromptConditioning]]:
    """Returns a schedule for each prompt. Equal prompts are encoded only once."""
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
    """Returns the conditions at `step`, counted from 0: `(prompts, tokens, width)`."""
    return torch.stack([_at_step(schedule, step) for schedule in conds])


def reconstruct_multicond_batch(
    conds: MulticondLearnedConditioning, step: int
) -> tuple[list[list[tuple[int, float]]], torch.Tensor]:
    """Returns the row number and weight of each part, by picture, and the rows `(parts of all pictures, tokens, width)`.

    Shorter rows are padded to the longest by repeating their last token.
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
    """Returns the pieces of a prompt, each with its emphasis.

    `(a)` counts 1.1 times, `[a]` 1/1.1 times, `(a:1.3)` 1.3 times; `\\(` is a literal parenthesis. An unclosed bracket extends
    to the end.
    """
    pieces, _ = _read_group(_TOKENS.findall(text), 0, "")
    joined = [("".join(piece for piece, _ in run), weight) for weight, run in groupby(pieces, key=lambda piece: piece[1])]
    return joined or [("", 1.0)]


def _read_group(tokens: list[str], position: int, opened_by: str) -> tuple[list[tuple[str, float]], int]:
    """Reads up to the bracket that closes the group, or to the end. Returns its weighted pieces, and the next position."""
    pieces: list[tuple[str, float]] = []
    factor = _FACTORS[opened_by]
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token in _FACTORS:
            inner, position = _read_group(tokens, position, token)
            pieces += inner
        elif opened_by == "(" and token[0] == ":" and token[-1] == ")":
            factor = float(token[1:-1])
            break
        elif opened_by + token in ("()", "[]"):
            break
        else:
            pieces.append((token[1:] if token[0] == "\\" and len(token) > 1 else token, 1.0))
    return [(piece, weight * factor) for piece, weight in pieces], position
