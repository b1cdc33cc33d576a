"""The guide's name for `wassily train decoder`, to be run by accelerate launch."""

import sys

from wassily.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "decoder", *sys.argv[1:]]))
