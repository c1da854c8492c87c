"""Small real problems: a network, its data, and how such networks are usually trained."""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from torch import nn

Tensor = torch.Tensor


@dataclass(frozen=True)
class Data:
    """Training and held-out examples."""

    x: Tensor
    y: Tensor
    val_x: Tensor
    val_y: Tensor


@dataclass(frozen=True)
class Family:
    """One kind of problem: everything that a run of it starts from."""

    name: str
    data: Callable[[], Data]
    network: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: str
    lr: float
    batch: int
    steps: int
    clip: float | None = None
    accuracy: bool = True
    warmup: int = 0
    schedule: str = "constant"
    weight_decay: float = 0.0


def _split(x: Any, y: Any, kind: torch.dtype) -> Data:
    order = np.random.default_rng(0).permutation(len(x))
    x, y = np.asarray(x, np.float32)[order], np.asarray(y)[order]
    cut = int(0.8 * len(x))
    a, b = torch.from_numpy(x), torch.from_numpy(y).to(kind)
    return Data(a[:cut], b[:cut], a[cut:], b[cut:])


@cache
def digits() -> Data:
    found = datasets.load_digits()
    return _split(found.data / 16.0, found.target, torch.int64)


@cache
def digit_images() -> Data:
    d = digits()
    return Data(d.x.view(-1, 1, 8, 8), d.y, d.val_x.view(-1, 1, 8, 8), d.val_y)


@cache
def digit_copies() -> Data:
    d = digits()
    return Data(d.x, d.x, d.val_x, d.val_x)


@cache
def cancer() -> Data:
    found = datasets.load_breast_cancer()
    x = (found.data - found.data.mean(0)) / found.data.std(0)
    return _split(x, found.target, torch.int64)


@cache
def diabetes() -> Data:
    found = datasets.load_diabetes()
    y = ((found.target - found.target.mean()) / found.target.std())[:, None]
    return _split(found.data * 20, y.astype(np.float32), torch.float32)


@cache
def text() -> Data:
    """Characters of the standard library's own sources, in pieces of 32."""
    source = "".join(inspect.getsource(m) for m in (argparse, json, textwrap, inspect))
    codes = np.frombuffer(source.encode("ascii", "replace"), np.uint8).astype(np.int64)
    codes = np.clip(codes - 32, 0, 95)
    pieces = codes[: len(codes) // 33 * 33].reshape(-1, 33)
    cut = int(0.9 * len(pieces))
    both = torch.from_numpy(pieces)
    return Data(both[:cut, :-1], both[:cut, 1:], both[cut:, :-1], both[cut:, 1:])


class Mlp(nn.Module):
    """Fully connected layers."""

    def __init__(self, sizes: list[int], activation: type[nn.Module], norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(b) if norm else nn.Identity() for b in sizes[1:-1])
        self.acts = nn.ModuleList(activation() for _ in sizes[1:-1])

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm, act in zip(self.layers[:-1], self.norms, self.acts, strict=True):
            x = act(norm(layer(x)))
        return self.layers[-1](x)


class Cnn(nn.Module):
    """Two convolutions with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.conv2, self.bn2 = nn.Conv2d(12, 24, 3, padding=1, stride=2), nn.BatchNorm2d(24)
        self.acts = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.ReLU()])
        self.fc1, self.fc2 = nn.Linear(24 * 16, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.acts[0](self.bn1(self.conv1(x)))
        x = self.acts[1](self.bn2(self.conv2(x)))
        return self.fc2(self.acts[2](self.fc1(x.flatten(1))))


class Gru(nn.Module):
    """A recurrent model of characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(96, 24), nn.GRU(24, 48, batch_first=True)
        self.acts = nn.ModuleList([nn.Identity()])
        self.head = nn.Linear(48, 96)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.acts[0](self.gru(self.embed(x))[0]))


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.act, self.down = (
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, t, w = x.shape
        q, k, v = (
            p.view(b, t, 4, w // 4).transpose(1, 2) for p in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, w))
        return x + self.down(self.act(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A two-layer language model of characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(96, 48), nn.Embedding(32, 48)
        self.blocks = nn.ModuleList(Block(48) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 96)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.place(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(out.flatten(0, -2), y.flatten())


FAMILIES = {
    f.name: f
    for f in (
        Family("mlp_digits", digits, lambda: Mlp([64, 96, 64, 48, 10], nn.ReLU), cross_entropy,
               "adam", 1e-3, 32, 700),
        Family("gru_text", text, Gru, cross_entropy, "adam", 2e-3, 16, 500, clip=1.0,
               schedule="cosine"),
        Family("autoencoder", digit_copies, lambda: Mlp([64, 48, 16, 48, 64], nn.Tanh),
               nn.functional.mse_loss, "rmsprop", 5e-4, 32, 700, accuracy=False),
        Family("cnn_digits", digit_images, Cnn, cross_entropy, "sgd", 0.02, 32, 500,
               schedule="steps"),
        Family("transformer", text, Transformer, cross_entropy, "adamw", 2e-3, 16, 450, clip=1.0,
               warmup=40, schedule="cosine"),
        Family("mlp_cancer", cancer, lambda: Mlp([30, 64, 64, 32, 2], nn.ReLU, norm=True),
               cross_entropy, "sgd", 0.001, 32, 500, warmup=30, weight_decay=0.1),
        Family("regression", diabetes, lambda: Mlp([10, 64, 64, 32, 1], nn.SiLU),
               nn.functional.mse_loss, "adam", 5e-4, 24, 700, accuracy=False),
    )
}  # fmt: skip

CALIBRATION = ("mlp_digits", "gru_text", "autoencoder")
HELD_OUT = ("cnn_digits", "transformer", "mlp_cancer", "regression")
