data_path: str
extensions_dir: str
models_path: str
