"""Settings of new tokens: vectors that are trained for them (textual inversion), with an adapter (pivotal tuning) or alone."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from registry.settings import setting
from registry.typed_values import fitted
from train.settings.rules import Rule

TYPES: dict[str, Any] = {"token": str, "vectors": int | None, "init": str | None}
KEYS = "{token, vectors, init}"
MOST = 32  # vectors of a token; prompts have 75 places in all
SPELLING = re.compile(r"<?(?=[a-z0-9_*-]*[a-z0-9])[a-z0-9_*-]{2,64}>?")


@dataclass(frozen=True, kw_only=True)
class TokenSetting:
    """One entry of tokens.add."""

    token: str
    vectors: int | None = None
    init: str | None = None

    @property
    def file_name(self) -> str:
        """The token without what a file's name cannot have: A1111 and ComfyUI take the name of the file as the token."""
        return re.sub(r"[<>*]", "", self.token)


@dataclass(kw_only=True)
class TokensConfig:
    add: Any = setting(
        None,
        "new tokens whose vectors are trained (textual inversion), beside the adapter (pivotal tuning) or with lora.kind=none alone:"
        " [{token: inkstyl, vectors: 2, init: ink drawing}]. token is as captions have it, lower case without spaces; init is the text"
        " whose vectors it begins from, in a circle where vectors are more than its tokens, refused where they are fewer (null: random);"
        " vectors is their number (null: as many as init has tokens)",
    )
    share: float = setting(1.0, "share of the steps in which the vectors are trained; then they are kept and the adapter alone is trained")
    keep_norm: bool = setting(
        True, "pull vectors that grow longer than those of the base's table back towards its mean, a tenth of the way (in log) a step"
    )

    def rules(self) -> Iterator[Rule]:
        """Ranges and spellings, without what needs the base."""
        good = isfinite(self.share) and 0 < self.share <= 1
        yield "share", self.share, good, "must be above 0 and at most 1"
        if self.add is None:
            return
        if not isinstance(self.add, (list, tuple)) or not self.add:
            yield "add", self.add, False, f"must be a list of {KEYS}, of which token is needed, or null"
            return
        for number, entry in enumerate(self.add):
            yield from _entry(f"add[{number}]", entry)
        yield from _together([str(entry.get("token")) for entry in self.add if isinstance(entry, Mapping)])


def _entry(where: str, entry: Any) -> Iterator[Rule]:
    if not isinstance(entry, Mapping):
        yield where, entry, False, f"must be {KEYS}"
        return
    for key, value in entry.items():
        yield f"{where}.{key}", value, key in TYPES, f"is no key of a token: {KEYS}"
        if key not in TYPES:
            continue
        try:
            fitted(value, TYPES[key])
        except ValueError as error:
            yield f"{where}.{key}", value, False, str(error)
    token, vectors, init = (entry.get(key) for key in TYPES)
    good = isinstance(token, str) and SPELLING.fullmatch(token) is not None and token.startswith("<") == token.endswith(">")
    must = "must be 2 to 64 of a-z 0-9 _ - *, in < > or not: CLIP's tokenizer reads lower case, and other signs have a meaning in prompts"
    yield f"{where}.token", token, good, must
    good = not isinstance(vectors, int) or 1 <= vectors <= MOST
    yield f"{where}.vectors", vectors, good, f"must be 1 to {MOST}, or null for the tokens of init"
    yield f"{where}.init", init, not isinstance(init, str) or bool(init.strip()), "must not be empty; null begins from random vectors"


def _together(tokens: list[str]) -> Iterator[Rule]:
    """Tokens that would be found inside each other, and files of one name."""
    for place, token in enumerate(tokens):
        others = tokens[:place] + tokens[place + 1 :]
        inside = next((other for other in others if token in other), None)
        yield f"add[{place}].token", token, inside is None, f"must not be a part of another token: it would be found inside {inside!r}"
    names = [TokenSetting(token=token).file_name for token in tokens]
    twice = sorted({name for name in names if names.count(name) > 1})
    yield "add", twice, not twice, "must give files of different names: those of these tokens are alike without < > *"


def tokens_of(config: TokensConfig) -> tuple[TokenSetting, ...]:
    """The entries of tokens.add."""
    return tuple(TokenSetting(**{key: fitted(value, TYPES[key]) for key, value in entry.items()}) for entry in config.add or ())


def vector_steps(config: TokensConfig, steps: int) -> int:
    """The steps of a run in which the vectors are trained: at least one."""
    return max(1, round(config.share * steps))


def token_rules(config: Any) -> Iterator[Rule]:
    """What a run's other settings must be beside tokens, and what of them needs tokens."""
    adds, alone = bool(config.tokens.add), config.lora.kind == "none"
    rate = config.optim.token_lr
    yield "optim.token_lr", rate, rate is None or adds, "needs tokens.add: no vector is trained"
    must = "must be null with lora.kind=none: optim.lr is the rate of the vectors, which alone are trained"
    yield "optim.token_lr", rate, rate is None or not alone, must
    yield "lora.kind", config.lora.kind, adds or not alone, "needs tokens.add: nothing else would be trained"
    share = config.tokens.share
    yield "tokens.share", share, share == 1 or adds, "needs tokens.add: no vector is trained"
    yield "tokens.share", share, share == 1 or not alone, "must be 1 with lora.kind=none: nothing would be trained after it"
    must = "must be false with lora.kind=none, which adds no layers; give lora.kind=lora"
    yield "lora.text_encoder", config.lora.text_encoder, not (alone and config.lora.text_encoder), must
    kept = config.objective.preserve_class
    yield "objective.preserve_class", kept, not alone or kept is None, "must be null with lora.kind=none: the base is not changed"
    name = config.objective.name
    yield "objective.name", name, not adds or name != "slider", "must not be slider beside tokens.add: a slider has prompts of its own"
