"""A sweeper for Hydra that searches with Optuna; Hydra finds plug-ins in the namespace hydra_plugins alone."""
