"""What is measured beside the held-out loss: the trigger, the adapter's change, each training image, drift; and what follows from it."""
