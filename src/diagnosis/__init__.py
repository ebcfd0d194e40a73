"""What is wrong with a data set, and what scores on it can mean."""
