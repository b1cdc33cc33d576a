"""Builds `mini` stage by stage: python -m tools.mini.build STAGE --work DIR. It can be resumed."""

import argparse

import torch

from tools.mini import clip, diffuse, movq

STAGES = {
    "clip": clip.train,
    "movq": movq.train,
    "polish": movq.polish,
    "prior": diffuse.train_prior,
    "decoder": diffuse.train_decoder,
}


def main():
    """Runs one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--work", default="runs/mini", help="where everything is kept")
    parser.add_argument("--steps", type=int, help="instead of the stage's own number")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options = {"steps": args.steps} if args.steps else {}
    minutes = STAGES[args.stage](args.work, **options)
    print(f"{args.stage}: {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
