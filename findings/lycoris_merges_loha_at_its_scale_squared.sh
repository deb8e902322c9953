#!/usr/bin/env bash
# lycoris-lora 4.1.3: merge_to of a LoHa (algo=loha) adds (alpha / rank) squared of the product where the applied network, in training and in
# drawing, adds alpha / rank; no error, no warning. A LoHa of rank 4 and alpha 1 is a quarter as strong once merged, one of alpha 8 twice.
# Where alpha is the rank nothing shows. LoRA, LoKr, GLoRA, T-LoRA and DyLoRA merge as they apply at every alpha.
# The cause: LohaModule.get_diff_weight multiplies what get_weight gives by the scale, which get_weight has already put into gamma.
#
# Seen with torch 2.13.0, Python 3.11: strength of the merged weight, the applied one's being 1, at alpha 1, 2, 4, 8 and rank 4:
#   lora 1.00 1.00 1.00 1.00
#   loha 0.25 0.50 1.00 2.00
#   lokr 1.00 1.00 1.00 1.00
#   glora 1.00 1.00 1.00 1.00
#   loha, its file read by create_lycoris_from_weights: 0.25 0.50 1.00 2.00
# What follows for users: a LoHa merged into a checkpoint by this library has another strength than the file that was trained and tried, unless
# alpha is the rank. Merge by the factors' product times alpha / rank, or give merge_to rank / alpha as its weight.
# Exits 0 while all of it is so, 1 when one part changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 lycoris-lora==4.1.3 numpy

cat >merge.py <<'PY'
import torch
from lycoris import LycorisNetwork, create_lycoris, create_lycoris_from_weights

LycorisNetwork.apply_preset({"target_name": [".*"]})
INPUT = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))


def layer():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(32, 32, bias=False)).eval()


def strength(algo, alpha, from_file):
    """Length of what the merged weight adds to the output, the applied network's being 1."""
    model = layer()
    network = create_lycoris(model, 1.0, linear_dim=4, linear_alpha=alpha, algo=algo)
    network.apply_to()
    torch.manual_seed(2)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    network.eval()
    with torch.no_grad():
        applied = model(INPUT)
        network.restore()
        plain = model(INPUT)
        if from_file:
            weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
            model = layer()
            network, _ = create_lycoris_from_weights(1.0, "", model, weights_sd=weights)
        network.merge_to(1.0)
        return float((model(INPUT) - plain).norm() / (applied - plain).norm())


for algo, from_file in (("lora", False), ("loha", False), ("lokr", False), ("glora", False), ("loha", True)):
    print(algo + (" file" if from_file else ""), *(f"{strength(algo, alpha, from_file):.2f}" for alpha in (1, 2, 4, 8)))
PY

env/bin/python merge.py 2>errors.txt | grep -v 'LyCORIS' >seen.txt || { cat errors.txt; exit 1; }
cat seen.txt
diff seen.txt - <<'SEEN'
lora 1.00 1.00 1.00 1.00
loha 0.25 0.50 1.00 2.00
lokr 1.00 1.00 1.00 1.00
glora 1.00 1.00 1.00 1.00
loha file 0.25 0.50 1.00 2.00
SEEN
