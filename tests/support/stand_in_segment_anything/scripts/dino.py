"""The other module of that stand-in."""

dino_model_list = ["none"]
