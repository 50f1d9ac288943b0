"""Read a checkpoint's folder: what its files say of the model, and whether they are all there."""
