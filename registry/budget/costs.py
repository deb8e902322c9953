"""What plans of training and of drawing assume alike: what is left of a card, and what quantised weights cost."""

from __future__ import annotations

RESERVED = round(1.2 * 2**30)  # bytes that CUDA's context, its libraries and the allocator's gaps take of a card
MAIN_MEMORY = 0.75  # of main memory: more cannot be locked for swapped blocks beside the system and the run itself
LATER_LIBRARIES = 56 * 2**20  # bytes that accelerate, peft and the allocator take of a CPU's memory after the plan (bench.memory.libraries)
PROCESS_STEP = 16 * 2**20  # to which a process's own memory is rounded up: from start to start it differs by half a MiB
ERRORS = {"int8": 0.005, "nf4": 0.09}  # relative weight errors (bench/quantised). fp8 is as large as int8 with five times its error
DEQUANTISED = {"int8": 1.15, "nf4": 1.3}  # of a pass's time: each weight is made again for each
