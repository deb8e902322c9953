"""Anonymous memory of a LoRA step with swapped blocks, on a transformer of 1.1 GB of random fp32 weights.

    OMP_NUM_THREADS=1 python -m bench.swap.memory FOLDER

FOLDER (made once) holds the weights. On a CPU the device's memory is main memory, so the two are kept apart by kind: what lies on the
device is anonymous memory, and swapped blocks are pages of the file, which the system may drop. Each row is a process of its own.
"""

import hashlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

SHAPE: dict[str, Any] = {  # FLUX.1's transformer, narrower and less deep
    "num_layers": 4,
    "num_single_layers": 8,
    "num_attention_heads": 8,
    "attention_head_dim": 128,
    "joint_attention_dim": 512,
    "pooled_projection_dim": 256,
    "in_channels": 64,
    "guidance_embeds": False,
}
TOKENS, TEXT, STEPS = 16, 4, 1
COUNTS = (0, 4, 8, 12)


def main(folder: Path) -> None:
    if not (folder / "config.json").exists():
        subprocess.run([sys.executable, "-m", "bench.swap.memory", str(folder), "write"], check=True)
    print("| swapped of 12 | weights on the device, MiB | anonymous memory at its peak, MiB | CPU s a step | adapter |")
    print("|---|---|---|---|---|", flush=True)
    for count in COUNTS:
        command = [sys.executable, "-m", "bench.swap.memory", str(folder), str(count)]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(f"| {count} | {row['weights']:,} | {row['peak']:,} | {row['seconds']:.1f} | `{row['adapter'][:12]}` |", flush=True)


def write(folder: Path) -> None:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    FluxTransformer2DModel(**SHAPE).save_pretrained(folder)


def measure(folder: Path, count: int) -> dict[str, Any]:
    """MiB on the device and of anonymous memory, seconds and the adapter's hash."""
    from diffusers import FluxTransformer2DModel
    from peft import LoraConfig, inject_adapter_in_model

    from registry.families import FAMILIES
    from registry.swapping.swap import BlockSwap

    model: Any = FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32).requires_grad_(False)
    swap = BlockSwap(FAMILIES["flux1"], model, count)
    for weight in model.parameters():
        if id(weight) not in swap._held:
            weight.data = anonymous(weight.data)
    torch.manual_seed(0)
    inject_adapter_in_model(LoraConfig(r=8, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"), model)
    model.enable_gradient_checkpointing()
    model.train()
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    on_device = sum(weight.nbytes for weight in model.parameters() if id(weight) not in swap._held)
    before = anonymous_mib() - on_device // 2**20
    if count:
        swap.begin(torch.device("cpu"))
        on_device += swap.ledger.cap
    seconds = time.process_time()
    with Peak() as peak:
        for _ in range(STEPS):
            step(model, learned)
    seconds = (time.process_time() - seconds) / STEPS
    digest = hashlib.sha256(b"".join(weight.detach().float().numpy().tobytes() for weight in learned)).hexdigest()
    return {"weights": on_device // 2**20, "peak": peak.mib - before, "seconds": seconds, "adapter": digest}


def step(model: Any, learned: list[torch.Tensor]) -> None:
    """Forward, backward, plain gradient descent."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    found = model(
        hidden_states=drawn(1, TOKENS, 64),
        encoder_hidden_states=drawn(1, TEXT, 512),
        pooled_projections=drawn(1, 256),
        timestep=torch.tensor([0.5]),
        img_ids=torch.zeros(TOKENS, 3),
        txt_ids=torch.zeros(TEXT, 3),
        return_dict=False,
    )[0]
    gradients = torch.autograd.grad(found.float().square().mean(), learned)
    with torch.no_grad():
        for weight, gradient in zip(learned, gradients, strict=True):
            weight -= 0.1 * gradient


def anonymous(tensor: torch.Tensor) -> torch.Tensor:
    """A copy at the same place in a cache line: matrix products round by it."""
    begin = tensor.data_ptr() % 64
    buffer = torch.empty(tensor.nbytes + 64, dtype=torch.uint8)
    return buffer[begin : begin + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)


def anonymous_mib() -> int:
    """Anonymous memory of this process now (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) // 1024


class Peak:
    """The most anonymous memory while it lasts, looked at every two milliseconds."""

    def __enter__(self) -> "Peak":
        self.mib, self._done = anonymous_mib(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.mib = max(self.mib, anonymous_mib())


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if len(sys.argv) < 3:
        main(place)
    elif sys.argv[2] == "write":
        write(place)
    else:
        print(json.dumps(measure(place, int(sys.argv[2]))))
