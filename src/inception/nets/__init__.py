"""What a network is: tables of rows and small builders; pure torch, no files, no training."""
