"""`accelerate launch train_text_to_image_decoder.py ...`: the guide's name for `wassily train decoder`."""

import sys

from wassily.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "decoder", *sys.argv[1:]]))
