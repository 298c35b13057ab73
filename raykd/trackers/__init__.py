"""A run followed by other programs while it goes on: MLflow, W&B, TensorBoard."""
