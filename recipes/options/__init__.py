"""The options of the command line, and YAML files of them."""
