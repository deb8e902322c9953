"""One image's way, step by step: tokens, nearest words, the predicted image at each step, what the negative prompt and adapters changed."""
