"""The commands of `twore`, a module each: `add(commands)` declares the options, and the function that runs returns the
exit status. torch is imported only by what runs."""
