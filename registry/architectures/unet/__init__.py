"""The UNets of the Stable Diffusion line: names, sizes, headers, LoRA targets, ControlNets."""
