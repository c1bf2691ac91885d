"""The command line `devicevm`: arguments in, the core called, the result on standard output."""
