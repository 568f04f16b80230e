"""What is wrong around a router on this machine, each with its remedy; `signalbox doctor`."""
