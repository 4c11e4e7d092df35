"""The commands of `goodseed`, a module for each.

Each module has `add_command(commands)`. It adds the command's parser to what argparse's
add_subparsers returned, and sets the parser's default `command`: a function that takes the parsed
options and returns the exit status.
"""
