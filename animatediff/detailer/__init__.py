"""Details faces and others in a finished clip: each is followed through the frames and made again as a clip of its own."""
