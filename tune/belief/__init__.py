"""What the trials so far say about the rack, and which configuration is worth a deployment next."""
