"""Learn the rack from measured trials and suggest the configuration worth measuring next."""
