"""What listens to a sweep and writes: CSV files, W&B, TensorBoard. One file a place."""
