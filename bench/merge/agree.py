"""Our methods beside sd-mecha's and mergekit's on the same small tensors: which agree, and why the others do not.

python bench/merge/agree.py [--write tests/registry/merging/agreement.safetensors]      (needs sd-mecha 1.1.8 and mergekit 0.1.5)

With --write the inputs and both tools' results go into the file that tests/registry/merging/test_agreement.py reads.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

KEY = "layer.weight"


def inputs() -> dict[str, Tensor]:
    """A base and three models not far from it, fp32; many equal signs, some close values."""
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    steps = [0.3 * torch.randn(6, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)]
    return {"base": base, "a": base + steps[0], "b": base + 0.5 * steps[0] + steps[1], "c": base + steps[2]}


MERGEKIT: dict[str, tuple[str, tuple[str, ...], dict[str, Any], list[dict[str, Any]]]] = {
    # our name: (their method, models, parameters of all, parameters of each)
    "weighted_sum": ("linear", ("a", "b"), {}, [{"weight": 0.7}, {"weight": 0.3}]),
    "average": ("linear", ("a", "b", "c"), {}, [{"weight": 1.0}, {"weight": 2.0}, {"weight": 0.5}]),
    "task_arithmetic": ("task_arithmetic", ("base", "a", "b"), {"lambda": 0.8}, [{}, {"weight": 1.0}, {"weight": 0.5}]),
    "ties": ("ties", ("base", "a", "b"), {}, [{}, {"weight": 1.0, "density": 0.4}, {"weight": 0.5, "density": 0.4}]),
    "slerp": ("slerp", ("a", "b"), {"t": 0.3}, [{}, {}]),
    "karcher": ("karcher", ("a", "b", "c"), {"tol": 1e-9, "max_iter": 100}, [{}, {}, {}]),
    "nearswap": ("nearswap", ("a", "b"), {"t": 0.05}, [{}, {}]),
    "model_stock": ("model_stock", ("base", "a", "b", "c"), {}, [{}, {}, {}, {}]),
    "breadcrumbs": ("breadcrumbs", ("base", "a", "b"), {}, [{}] + [{"weight": 1.0, "density": 0.5, "gamma": 0.1}] * 2),
    "sce": ("sce", ("base", "a", "b", "c"), {"select_topk": 0.5}, [{}, {}, {}, {}]),
}


def mergekit(name: str, tensors: dict[str, Tensor], folder: Path) -> Tensor:
    """What mergekit-pytorch makes of the tensors."""
    import yaml
    from mergekit.scripts.merge_raw_pytorch import main

    method, models, shared, own = MERGEKIT[name]
    paths = {model: folder / f"{model}.safetensors" for model in models}
    for model, path in paths.items():
        save_file({KEY: tensors[model]}, path)
    config: dict[str, Any] = {"merge_method": method, "dtype": "float32", "parameters": shared}
    if models[0] == "base" or method in ("slerp", "nearswap"):
        config["base_model"] = str(paths[models[0]])
    listed = models[1:] if models[0] == "base" else models
    config["models"] = [{"model": str(paths[model]), "parameters": own[models.index(model)]} for model in listed]
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(config))
    main.main([str(recipe), str(folder / "out"), "--no-cuda"], standalone_mode=False)
    (found,) = (folder / "out").glob("*.safetensors")
    return load_file(found)[KEY]


def sd_mecha(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What sd-mecha's functions give, by our names."""
    from sd_mecha.extensions.builtin.merge_methods import cosine, linear, ties

    base, a, b, c = (tensors[name] for name in ("base", "a", "b", "c"))
    one = torch.tensor
    deltas = [model - base for model in (a, b, c)]
    return {
        "slerp, rescaled": linear.slerp.__wrapped__(a, b, one(0.3)),
        "train_difference": a + (b - c) * linear.train_difference_mask.__wrapped__(a, b, c, one(0.7)),
        "cosine, side a": cosine.add_cosine_a.__wrapped__(a, b, one(0.2)),
        "cosine, side b": cosine.add_cosine_b.__wrapped__(a, b, one(0.2)),
        "ties, unweighted sign by count": base + ties.ties_sum.__wrapped__(*deltas, k=0.4, vote_sgn=True),
        "ties, majority of three": base + ties.ties_sum.__wrapped__(*deltas, k=1.0, vote_sgn=False),
        "ties, even votes": base + ties.ties_sum.__wrapped__(*deltas[:2], k=1.0, vote_sgn=False),
        "geometric_median": ties.geometric_median.__wrapped__(a, b, c),
        "model_stock, by row": base + ties.model_stock.__wrapped__(*deltas),
    }


def actual(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same merges here."""
    from registry.merging.methods import linear, means, pairwise, sparse, spherical

    base, a, b, c = (tensors[name] for name in ("base", "a", "b", "c"))
    counted = sparse.ties(base, a, b, c, density=1.0, sign="count", divide="count")
    return {
        "weighted_sum": linear.weighted_sum(a, b, alpha=0.3),
        "average": linear.average(a, b, c, weights=(1.0, 2.0, 0.5)),
        "task_arithmetic": linear.task_arithmetic(base, a, b, weights=(1.0, 0.5), scale=0.8),
        "ties": sparse.ties(base, a, b, weights=(1.0, 0.5), density=0.4),
        "slerp": spherical.slerp(a, b, alpha=0.3),
        "karcher": means.karcher(a, b, c),
        "nearswap": pairwise.nearswap(a, b, threshold=0.05),
        "model_stock": means.model_stock(base, a, b, c),
        "breadcrumbs": sparse.breadcrumbs(base, a, b, density=0.5, outliers=0.1),
        "sce": sparse.sce(base, a, b, c, density=0.5),
        "slerp, rescaled": spherical.slerp(a, b, alpha=0.3, rescale=True),
        "train_difference": pairwise.train_difference(a, b, c, alpha=0.7),
        "cosine, side a": pairwise.cosine(a, b, alpha=0.2, side="a"),
        "cosine, side b": pairwise.cosine(a, b, alpha=0.2, side="b"),
        "ties, unweighted sign by count": sparse.ties(base, a, b, c, density=0.4, sign="unweighted", divide="count"),
        "ties, majority of three": counted,
        "ties, even votes": sparse.ties(base, a, b, density=1.0, sign="count", divide="count"),
        "geometric_median": means.geometric_median(a, b, c),
        "model_stock, by row": means.model_stock(base, a, b, c),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    tensors = inputs()
    expected: dict[str, Tensor] = {f"sd-mecha/{name}": value for name, value in sd_mecha(tensors).items()}
    for name in MERGEKIT:
        with tempfile.TemporaryDirectory() as folder:
            expected[f"mergekit/{name}"] = mergekit(name, tensors, Path(folder))
    found: dict[str, Callable[..., Any] | Tensor] = dict(actual(tensors))
    for place, value in sorted(expected.items()):
        tool, _, name = place.partition("/")
        mine = found[name]
        assert isinstance(mine, Tensor)
        print(f"{tool:<9} {name:<32} largest difference {float((mine - value).abs().max()):.1e}")
    if arguments.write:
        save_file({**{f"input/{name}": value for name, value in tensors.items()}, **expected}, arguments.write)


if __name__ == "__main__":
    main()
