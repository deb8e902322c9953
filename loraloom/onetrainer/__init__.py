"""Training settings of OneTrainer, read from its JSON, as settings of `loraloom train`."""
