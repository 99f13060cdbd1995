"""`Classifier`, prediction for files of any size, and exports."""
