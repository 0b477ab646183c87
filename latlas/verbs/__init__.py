"""What can be done with a run: a function for each verb, and the passes behind them."""
