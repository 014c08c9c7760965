"""The life of one generation in the WebUI: what is changed on `p` and on the loaded model, step by step, and undone."""
