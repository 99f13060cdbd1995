"""`Classifier`, prediction of files of any size, exports."""
