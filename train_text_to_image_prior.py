"""The guide's name for `wassily train prior`: accelerate launch train_text_to_image_prior.py ..."""

import sys

from wassily.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "prior", *sys.argv[1:]]))
