"""Training: motion modules, motion LoRAs and domain adapters, on an image model that stays as it is."""
