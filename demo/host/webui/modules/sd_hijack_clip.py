"""Stands in for `modules.sd_hijack_clip`: encodes prompts of any length, in chunks of 75 tokens that are concatenated."""

from __future__ import annotations

import torch
from modules.prompt_parser import parse_prompt_attention
from torch import nn

CHUNK = 75


class FrozenCLIPEmbedderWithCustomWordsBase(nn.Module):
    def __init__(self, transformer: nn.Module, tokenizer: object) -> None:
        """`transformer`: a `CLIPTextModel` of transformers. `tokenizer`: its `CLIPTokenizer`."""
        super().__init__()
        self.transformer = transformer
        self.tokenizer = tokenizer

    def forward(self, texts: list[str]) -> torch.Tensor:
        """Encodes texts as `(texts, 77 × chunks, width)`. All texts get as many chunks as the longest."""
        chunks = [self._chunks(text) for text in texts]
        longest = max(len(of_text) for of_text in chunks)
        empty = self._chunk([], [])
        padded = [of_text + [empty] * (longest - len(of_text)) for of_text in chunks]
        return torch.cat([self._encode([of_text[index] for of_text in padded]) for index in range(longest)], dim=1)

    def _chunks(self, text: str) -> list[tuple[list[int], list[float]]]:
        tokens: list[int] = []
        weights: list[float] = []
        for piece, weight in parse_prompt_attention(text):
            ids = self.tokenizer(piece, truncation=False, add_special_tokens=False)["input_ids"]
            tokens += ids
            weights += [weight] * len(ids)
        starts = range(0, max(len(tokens), 1), CHUNK)
        return [self._chunk(tokens[start : start + CHUNK], weights[start : start + CHUNK]) for start in starts]

    def _chunk(self, tokens: list[int], weights: list[float]) -> tuple[list[int], list[float]]:
        missing = CHUNK - len(tokens)
        ends = [self.tokenizer.eos_token_id] * (missing + 1)
        return [self.tokenizer.bos_token_id, *tokens, *ends], [1.0, *weights, *[1.0] * (missing + 1)]

    def _encode(self, chunks: list[tuple[list[int], list[float]]]) -> torch.Tensor:
        """Encodes one chunk of each text. Emphasis scales a token's embedding; the mean over all embeddings is kept."""
        device = next(self.transformer.parameters()).device
        tokens = torch.tensor([tokens for tokens, _ in chunks], device=device)
        weights = torch.tensor([weights for _, weights in chunks], device=device)
        hidden = self.transformer(input_ids=tokens).last_hidden_state
        weighted = hidden * weights.to(hidden)[..., None]
        return weighted * (hidden.mean() / weighted.mean())
