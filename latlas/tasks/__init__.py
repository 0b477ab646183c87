"""What people do with a trained model. Models and data sets in, NumPy arrays in data units out."""
