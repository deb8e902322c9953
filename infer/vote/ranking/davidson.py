"""Strengths from votes with ties: Davidson's extension of Bradley and Terry's model, for one table of votes or many at once.

A beats B with exp(d/2)/Z, loses with exp(-d/2)/Z and ties with nu/Z, where d is the difference of their strengths and Z the sum (Davidson
1970, eq. 2.4). Of decisive votes A wins the share 1/(1 + exp(-d)), whatever nu is, and a candidate's score is its wins and half its
ties; Rao and Kupper's model has neither property. Strengths have a log-F(1,1) prior (Greenland & Mansournia 2015): half a win and half a
loss against an average candidate, so that one that won everything has a finite estimate.
"""

# R tables, P pairs, K candidates, G groups (prompts); counts: (..., P, 3) wins of the first, of the second, ties

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PENALTY = 1.0  # votes a candidate
STEPS = 100
LONGEST = 2.0  # of a Newton step, in log odds
EXACT = 1e-9


@dataclass(frozen=True)
class Fit:
    """Strengths of R tables, centred, in log odds; `tie` is log nu, -inf where there was no tie."""

    strengths: Any  # (R, K)
    tie: Any  # (R,)
    hessian: Any  # (R, K + 1, K + 1) of the negative penalised log likelihood


def fit(pairs: Any, counts: Any, candidates: int, *, penalty: float = PENALTY) -> Fit:
    """The penalised maximum likelihood of each of R tables; pairs (P, 2), counts (R, P, 3). Newton's method: the likelihood is concave."""
    counts = np.asarray(counts, dtype=np.float64)
    design = differences(pairs, candidates)  # (P, K)
    tied = counts[..., 2].sum(-1) > 0  # (R,)
    theta, eta = np.zeros((len(counts), candidates)), np.where(tied, -1.0, -np.inf)
    for _ in range(STEPS):
        gradient, hessian = _derivatives(theta, eta, design, counts, penalty)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        largest = np.abs(step).max(-1, keepdims=True)
        step *= np.minimum(1.0, LONGEST / np.maximum(largest, EXACT))
        theta = theta + step[:, :-1]
        eta = np.where(tied, eta + step[:, -1], eta)
        if largest.max() < EXACT:
            break
    _, hessian = _derivatives(theta, eta, design, counts, penalty)
    return Fit(theta - theta.mean(-1, keepdims=True), eta, hessian)


def differences(pairs: Any, candidates: int) -> Any:
    """(P, K): 1 for the first candidate of each pair, -1 for the second."""
    return np.eye(candidates)[np.asarray(pairs)[:, 0]] - np.eye(candidates)[np.asarray(pairs)[:, 1]]


def chances(theta: Any, eta: Any, design: Any) -> tuple[Any, Any, Any]:
    """(R, P) each: the first wins, the second wins, a tie."""
    half = theta @ design.T / 2
    top = np.maximum(np.abs(half), eta[:, None])
    first, second, tie = np.exp(half - top), np.exp(-half - top), np.exp(eta[:, None] - top)
    total = first + second + tie
    return first / total, second / total, tie / total


def scores(theta: Any, eta: Any, design: Any, counts: Any) -> Any:
    """(R, K + 1): the gradient of the log likelihood, without the prior."""
    first, second, tie = chances(theta, eta, design)
    votes = counts.sum(-1)
    by_pair = (counts[..., 0] - counts[..., 1]) / 2 - votes * (first - second) / 2
    return np.concatenate([by_pair @ design, (counts[..., 2] - votes * tie).sum(-1, keepdims=True)], -1)


def _derivatives(theta: Any, eta: Any, design: Any, counts: Any, penalty: float) -> tuple[Any, Any]:
    first, second, tie = chances(theta, eta, design)
    votes, middle = counts.sum(-1), (first - second) / 2
    candidates = design.shape[1]
    hessian = np.zeros((len(theta), candidates + 1, candidates + 1))
    hessian[:, :-1, :-1] = np.einsum("pi,rp,pj->rij", design, votes * ((first + second) / 4 - middle**2), design, optimize=True)
    hessian[:, :-1, -1] = hessian[:, -1, :-1] = (-votes * middle * tie) @ design
    hessian[:, -1, -1] = (votes * tie * (1 - tie)).sum(-1)
    gradient = scores(theta, eta, design, counts)
    own, none = 1 / (1 + np.exp(-theta)), 1 / (1 + np.exp(-np.where(np.isfinite(eta), eta, 0.0)))
    index = np.arange(candidates)
    gradient[:, :-1] += penalty * (0.5 - own)
    hessian[:, index, index] += penalty * own * (1 - own)
    active = np.isfinite(eta)
    gradient[:, -1] = np.where(active, gradient[:, -1] + PENALTY * (0.5 - none), 0.0)
    hessian[:, -1, -1] = np.where(active, hessian[:, -1, -1] + PENALTY * none * (1 - none), 1.0)
    return gradient, hessian


def spread(pairs: Any, groups: Any, found: Fit) -> tuple[Any, float]:
    """The covariance (K, K) of the strengths of one table, and the design effect in it; groups (G, P, 3) are votes that may be dependent.

    The model's own covariance times the mean design effect of the contrasts (Rao & Scott 1984, the first-order correction), at least 1. One
    number from all candidates varies less with few prompts than a sandwich does for each, and it holds where a candidate won everything.
    """
    model, robust = covariances(pairs, groups, found)
    effect = float(np.trace(np.linalg.pinv(model, hermitian=True) @ robust)) / (len(model) - 1)
    return model * max(1.0, effect), max(1.0, effect)


def covariances(pairs: Any, groups: Any, found: Fit) -> tuple[Any, Any]:
    """(K, K) each: the inverse information, and the sandwich over groups with the factor G / (G - 1); 0 for fewer than two groups."""
    groups = np.asarray(groups, dtype=np.float64)
    candidates = found.strengths.shape[-1]
    design, inverse = differences(pairs, candidates), np.linalg.inv(found.hessian[0])
    each = scores(found.strengths[:1], found.tie[:1], design, groups)  # (G, K + 1)
    centre = np.eye(candidates) - 1 / candidates
    model = centre @ inverse[:-1, :-1] @ centre
    if len(groups) < 2:
        return model, np.zeros_like(model)
    if not np.isfinite(found.tie[0]):
        each[:, -1] = 0.0
    each = each - each.mean(0)
    meat = each.T @ each * len(groups) / (len(groups) - 1)
    robust = centre @ (inverse @ meat @ inverse)[:-1, :-1] @ centre
    return model, robust
