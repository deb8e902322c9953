"""Sources that models are downloaded from: the Hugging Face Hub and the web."""
