"""Training settings of kohya's sd-scripts, read from its TOML files, as settings of `loraloom train`."""
