"""The parts that the modules are composed of, one idea a file."""
