"""Run diffusers' train_text_to_image_lora.py as it is, with torchvision's transforms where its compiled operators do not load.

python -m bench.learning.peer SCRIPT ARGUMENT...

torchvision's wheel is built for CUDA: beside a CPU build of torch its import ends at operators that the script never calls. Declared by
hand, the import goes on, and transforms of PIL images are plain Python.
"""

import runpy
import sys

import torch

OPERATORS = ("nms", "qnms")  # those that the import of torchvision 0.28 asks for, in its order


def main() -> None:
    """Hand the arguments on to the script."""
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            for module in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
                del sys.modules[module]
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
