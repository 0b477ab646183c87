"""Images, plots and the one-file HTML report: arrays in, bytes out."""
