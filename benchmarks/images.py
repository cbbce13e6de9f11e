"""Bits per dimension of densities of images, and how often a classifier is sure what a drawn digit is.

    python benchmarks/images.py [--data DIR] [--only digits,frey] [--methods "maf;realnvp;glow"] [--max-time SECONDS]
        [--picture FILE]

Digits are those of scikit-learn, 8x8 pixels of 17 levels. Frey faces, 28x20 pixels of 8 bits, are read from
``DIR/frey_faces_28x20.npz`` (array ``X``); without ``--data`` they are left out. A fifth of the images is held out, drawn at
random. (Frey faces are frames of a video, so each has neighbours among the training images.)

All methods are scored on the same held-out images with the same uniform noise of one level. MAF is fitted as a table, to images
with noise of the same kind; it is given 1 or 10 noisy copies of each. RealNVP and Glow are fitted to the levels with
``image_shape``, and dequantise themselves. "normal" are the same, but start from a Gaussian, not a mixture. (MAF tries both.)

A drawn digit counts as sure if a support vector classifier that was fitted to the training digits gives one of the ten a
probability above 0.8; the last column is their share of 1,000 draws, rounded to levels. The first two lines tell what
that means: the shares of held-out digits, and of images whose pixels are drawn from the columns one by one. Everything has
one thread.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the libraries below are loaded

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from sklearn_flows import GlowDensity, MAFDensity, RealNVPDensity
from sklearn_flows.metrics import bits_per_dim

SHAPES = {"digits": (1, 8, 8), "frey": (1, 28, 20)}
# Frey faces have nine times as many pixels: networks that are as wide would take an hour.
NETWORKS = {
    "digits": {"n_transforms": 8, "hidden_layer_sizes": (64, 64)},
    "frey": {"n_transforms": 4, "hidden_layer_sizes": (32, 32)},
}
N_DRAWS = 1_000
SURE = 0.8


def methods(name, max_time):
    """Pairs of an unfitted estimator and the number of noisy copies that it is given (0: the levels themselves)."""
    images = {"image_shape": SHAPES[name], "max_time": max_time, "random_state": 0, **NETWORKS[name]}
    return {
        "maf": (MAFDensity(max_time=max_time, random_state=0), 1),
        "maf, 10 copies": (MAFDensity(max_time=max_time, random_state=0), 10),
        "realnvp": (RealNVPDensity(**images), 0),
        "glow": (GlowDensity(**images), 0),
        "realnvp, normal": (RealNVPDensity(base="normal", **images), 0),
        "glow, normal": (GlowDensity(base="normal", **images), 0),
    }


def noisy(X, n_copies, rng):
    return np.concatenate([X + rng.uniform(-0.5, 0.5, X.shape) for _ in range(n_copies)])


def share_of_sure(classifier, images):
    return (classifier.predict_proba(images).max(axis=1) > SURE).mean()


def save_picture(path, samples, image_shape):
    import matplotlib.pyplot as plt

    _, height, width = image_shape
    framed = np.pad(samples[:100].reshape(100, height, width), ((0, 0), (1, 1), (1, 1)))
    tiles = framed.reshape(10, 10, height + 2, width + 2).transpose(0, 2, 1, 3).reshape(10 * (height + 2), -1)
    plt.imsave(path, tiles, cmap="gray")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of frey_faces_28x20.npz")
    parser.add_argument("--only", default="digits,frey", help="names of tables")
    parser.add_argument("--methods", help="names of methods, separated by semicolons")
    parser.add_argument("--max-time", type=float, help="seconds that each fit may take; without it, max_iter='auto'")
    parser.add_argument("--picture", type=Path, help="where to draw 100 samples, the names of table and method put before .png")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="A continuous density is not meaningful")
    warnings.filterwarnings("ignore", message=".*probability.*", category=FutureWarning)

    print(f"{'images':<8}{'method':<18}{'bits per dim':>13}{'seconds':>9}{'epochs':>8}{'sure':>7}")
    for name in arguments.only.split(","):
        if name == "frey" and arguments.data is None:
            continue
        X = load_digits().data if name == "digits" else np.load(arguments.data / "frey_faces_28x20.npz")["X"].astype(float)
        names = load_digits().target if name == "digits" else np.zeros(len(X))
        train, test, train_names, _ = train_test_split(X, names, test_size=0.2, random_state=0)
        noisy_test = noisy(test, 1, np.random.RandomState(0))
        if name == "digits":
            classifier = SVC(gamma=0.001, probability=True, random_state=0).fit(train, train_names)
            rng = np.random.RandomState(0)
            mixed = np.column_stack([rng.permutation(column) for column in train.T])
            for label, images in (("real", test), ("pixels one by one", mixed)):
                print(f"{name:<8}{label:<18}{'':30}{share_of_sure(classifier, images):7.0%}", flush=True)
        for method, (density, n_copies) in methods(name, arguments.max_time).items():
            if arguments.methods is not None and method not in arguments.methods.split(";"):
                continue
            start = time.perf_counter()
            density.fit(noisy(train, n_copies, np.random.RandomState(1)) if n_copies else train)
            seconds = time.perf_counter() - start
            bits = bits_per_dim(density.score_samples(noisy_test), X.shape[1])
            samples = np.clip(np.rint(density.sample(N_DRAWS, random_state=0)), X.min(), X.max())
            sure = f"{share_of_sure(classifier, samples):7.0%}" if name == "digits" else ""
            print(f"{name:<8}{method:<18}{bits:13.3f}{seconds:9.0f}{density.n_iter_:8}{sure}", flush=True)
            if arguments.picture is not None:
                path = arguments.picture.with_stem(f"{arguments.picture.stem}_{name}_{method.replace(', ', '_')}")
                save_picture(path, samples, SHAPES[name])


if __name__ == "__main__":
    main()
