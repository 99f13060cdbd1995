"""The run behind the loop of train.ipynb: optimizer, schedule, checkpoints, several processes, and speed."""
