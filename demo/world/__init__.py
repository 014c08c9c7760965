"""A world small enough for two CPU cores: coloured shapes that move, captions that say how, and a judge that can tell."""
