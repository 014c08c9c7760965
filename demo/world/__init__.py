"""A small world, in which models train on two CPU cores: moving coloured shapes, captions, and a judge that reads clips."""
