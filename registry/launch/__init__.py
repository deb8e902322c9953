"""Several processes that share one job: `accelerate launch`, torchrun, MPI."""
