"""The commands, one file each; main.py names them."""
