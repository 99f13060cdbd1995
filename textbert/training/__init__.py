"""What is behind the loop of train.ipynb: batches, runs, optimizer, checkpoints, several processes, and speed."""
