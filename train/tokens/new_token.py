"""The new tokens of a run, checked against the base's tokenizers: spelling, vocabulary, the tokens they begin from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from registry.architectures.text.textual_inversion import TokenizerWithEmbeddings, clip_encoders, spellings, tokenizer_of
from registry.errors import Faults, Refused
from registry.family import Family
from registry.parts import Parts
from train.config import TrainConfig
from train.settings.tokens import TokenSetting, tokens_of

LOADS_IN = "A1111 and Forge, ComfyUI, diffusers (load_textual_inversion)"


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """A token whose vectors are trained."""

    token: str  # as prompts have it
    file_name: str  # of its embedding, without the ending: A1111 and ComfyUI take it as the token
    vectors: int
    init: str | None  # text that it begins from
    ids: Mapping[str, tuple[int, ...]]  # text encoder -> the tokens of `init`; none: random vectors
    keys: Mapping[str, str]  # text encoder -> the tensor's name in the file
    widths: Mapping[str, int]  # text encoder -> numbers of a vector

    @property
    def parameters(self) -> int:
        """Numbers that learn."""
        return self.vectors * sum(self.widths.values())


def token_keys(family: Family) -> dict[str, str]:
    """Text encoder -> its tensor in an embedding's file, as A1111 and ComfyUI read it; none where no tool loads one for the family."""
    if family.embedding_keys:
        return dict(zip(family.text_encoders, family.embedding_keys, strict=True))
    return {family.text_encoders[0]: "emb_params"} if family.embedding_dim is not None else {}


def find_tokens(config: TrainConfig, family: Family, parts: Parts) -> tuple[NewToken, ...]:
    """The tokens of `tokens.add`. Raises Refused or Faults for a family that takes none, and for tokens that would not work."""
    given = tokens_of(config.tokens)
    if not given:
        return ()
    keys = token_keys(family)
    if not keys:
        other = "its other text encoder is a language model" if clip_encoders(parts) else "it reads prompts with a language model"
        raise Refused(f"tokens.add: {family.title} takes no new tokens: {other}, for which no tool loads vectors. Leave tokens.add out.")
    faults: list[str] = []
    found = [token for one in given if (token := _new_token(one, keys, parts, faults)) is not None]
    if not faults:
        faults = [fault for token in found for fault in _odd(token, with_new_tokens(parts, found), family)]
    if faults:
        raise Faults("These tokens cannot be trained:", faults)
    return tuple(found)


def _new_token(given: TokenSetting, keys: Mapping[str, str], parts: Parts, faults: list[str]) -> NewToken | None:
    tokenizers = {component: parts.tokenizers[tokenizer_of(component)] for component in keys}
    ids = {name: _ids(tokenizer, given.init) for name, tokenizer in tokenizers.items()}
    longest = max(map(len, ids.values()))
    vectors = given.vectors or max(1, longest)
    known = {word for tokenizer in tokenizers.values() for word in tokenizer.get_vocab()}
    taken = [word for word in spellings(given.token, vectors) if word in known or f"{word}</w>" in known]
    before = len(faults)
    if taken:
        faults.append(
            f"{given.token!r}: {taken[0]!r} is in the base's vocabulary already, and every prompt with it would change. Give a word that"
            f" means nothing, such as <{given.file_name}-1>."
        )
    if given.init is not None and not longest:
        faults.append(f"{given.token!r}: init={given.init!r} gives no token. Give a word, or null for random vectors.")
    if longest > vectors:
        faults.append(
            f"{given.token!r}: init={given.init!r} is {longest} tokens, and vectors is {vectors}. Give vectors={longest}, or a"
            " shorter text."
        )
    if len(faults) > before:
        return None
    widths = {name: int(encoder.config.hidden_size) for name, encoder in clip_encoders(parts).items() if name in keys}
    return NewToken(token=given.token, file_name=given.file_name, vectors=vectors, init=given.init, ids=ids, keys=keys, widths=widths)


def _ids(tokenizer: Any, text: str | None) -> tuple[int, ...]:
    return () if text is None else tuple(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)


def _odd(token: NewToken, parts: Parts, family: Family) -> list[str]:
    """What is wrong with how the tokenizers read it, and how much of a prompt it takes."""
    for component in token.keys:
        tokenizer: Any = parts.tokenizers[tokenizer_of(component)]
        wanted = [tokenizer.get_vocab()[word] for word in spellings(token.token, token.vectors)]
        for text in (token.token, f"a {token.token}, b"):
            read = tokenizer(text, truncation=False, verbose=False).input_ids
            if not any(list(read[place : place + len(wanted)]) == wanted for place in range(len(read))):
                return [
                    f"{token.token!r}: the base's tokenizer reads {text!r} as {tokenizer.tokenize(text)}. Give letters and digits alone."
                ]
    needs, fits = family.count_tokens(parts, token.token)
    return [f"{token.token!r} takes {needs} tokens of a prompt with its marks, and {fits} fit. Give fewer vectors."] if needs > fits else []


def with_new_tokens(parts: Parts, tokens: Sequence[NewToken]) -> Parts:
    """The parts whose tokenizers have the tokens; the text encoders are unchanged, which is enough to count and cut prompts."""
    if not tokens:
        return parts
    counted = [(token.token, token.vectors) for token in tokens]
    own = {tokenizer_of(component) for component in tokens[0].keys}
    tokenizers = {name: TokenizerWithEmbeddings(one, counted) if name in own else one for name, one in parts.tokenizers.items()}
    return replace(parts, tokenizers=tokenizers)
