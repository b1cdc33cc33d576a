"""What the image embedding knows: python -m tools.mini.probe --work DIR. Held-out scenes only."""

import argparse
import json
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from tools.mini import bank, clip, encoded
from wassily.mini import world
from wassily.mini.language import sentence
from wassily.models import encode

TRAIN, HELD_OUT = 6000, 2000


def linear_probe(train, test, labels, wanted):
    """Accuracy on `test` (M, D) of a logistic regression fitted on `train` (N, D)."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / std, (test - mean) / std
    head = torch.nn.Linear(train.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=60)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(head(train), labels) + 1e-4 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return float((head(test).argmax(1) == wanted).float().mean())


def explained(train, test, values, wanted):
    """Fraction of the variance of `wanted` (M, K) that a linear map from `train` explains."""
    ones = lambda x: torch.cat([x, torch.ones(len(x), 1)], 1)  # noqa: E731
    solution = torch.linalg.lstsq(ones(train), values).solution
    rest = wanted - ones(test) @ solution
    return float(1 - rest.var(0).sum() / wanted.var(0).sum())


def zero_shot(work, embeds, scenes, language):
    """Accuracy of picking the right sentence among those that differ in one attribute."""
    tokenizer, encoder = encoded.load(work, "tokenizer", "text_encoder")
    rng, result = np.random.default_rng(0), {}
    for name, values in bank.ATTRIBUTES.items():
        texts = [
            sentence(replace(s, **{name: v}), rng, language, plain=True)
            for s in scenes
            for v in values
        ]
        ids = clip.tokens(tokenizer, texts)
        said = torch.cat([encode.text(encoder, part, 1)[0] for part in ids.split(500)])
        said = F.normalize(said.reshape(len(scenes), len(values), -1), dim=-1)
        similar = (said * F.normalize(embeds, dim=-1)[:, None]).sum(-1)
        wanted = torch.tensor([values.index(getattr(s, name)) for s in scenes])
        result[name] = round(float((similar.argmax(1) == wanted).float().mean()), 3)
    return result


def main():
    """Prints zero-shot accuracies, linear probes and what is explained of place and outline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="runs/mini")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = bank.make(5, TRAIN)
    scenes = world.scenes(6, HELD_OUT, "held_out")
    test = bank.make(6, HELD_OUT, "held_out")
    (encoder,) = encoded.load(args.work, "image_encoder")
    both = [encode.image(encoder, clip.pixels(b.pictures)) for b in (train, test)]
    for language in ("en", "ar"):
        print(
            json.dumps({"zero-shot": language, **zero_shot(args.work, both[1], scenes, language)})
        )
    labels, wanted = (torch.from_numpy(b.labels) for b in (train, test))
    probes = {
        name: round(linear_probe(*both, labels[:, k], wanted[:, k]), 3)
        for k, name in enumerate(bank.ATTRIBUTES)
    }
    print(json.dumps({"linear probe": "accuracy", **probes}))
    maps = [torch.from_numpy(b.masks).flatten(1).float() / 255 for b in (train, test)]
    place = [centres(m) for m in maps]
    alone = [torch.from_numpy(b.labels[:, 4] == 0) for b in (train, test)]
    single = explained(both[0][alone[0]], both[1][alone[1]], place[0][alone[0]], place[1][alone[1]])
    print(
        json.dumps(
            {
                "explained": "variance",
                "coverage": round(explained(*both, *maps), 3),
                "place of one": round(single, 3),
            }
        )
    )
    values = torch.linalg.eigvalsh(torch.cov(both[0].T)).flip(0)
    print("spectrum", [round(float(v), 3) for v in values[::8]])


def centres(maps):
    """Centre of mass (N, 2) of coverage maps (N, S * S)."""
    side = int(maps.shape[1] ** 0.5)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, side)] * 2, indexing="ij"), -1)
    return maps @ grid.reshape(-1, 2) / maps.sum(1, keepdim=True)


if __name__ == "__main__":
    main()
