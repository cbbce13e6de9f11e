"""
Drawing digits
==============

A row of ``load_digits`` is an image: 8x8 pixels, flattened, of 17 levels of grey. ``RealNVPDensity`` and ``GlowDensity`` are
told so by ``image_shape``. Their networks are then convolutional, and half of the pixels become latents early, the other half
after a second level that sees the image at half the size. This example fits both, draws new digits, and looks at what the
density says about real ones.

The flows are small and trained for a short time, so that the page is built quickly.
"""

# %%
# Fit
# ---
# Pixels are levels; the estimators add the noise that makes them continuous by themselves. A fifth of the digits is held out.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from sklearn_flows import GlowDensity, RealNVPDensity
from sklearn_flows.metrics import bits_per_dim

X = load_digits().data
train, test = train_test_split(X, test_size=0.2, random_state=0)
small = {"image_shape": (1, 8, 8), "n_transforms": 4, "hidden_layer_sizes": (24, 24), "max_iter": 4, "random_state": 0}
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    densities = [RealNVPDensity(**small).fit(train), GlowDensity(**small).fit(train)]

# %%
# Bits per dimension
# ------------------
# What papers on images report: how many bits a lossless code built on the density would need for each pixel, at most. All 17
# levels equally likely would take 4.09 bits. A pixel's level is the middle of a cell of width one, and noise fills the cell.

noisy = test + np.random.RandomState(0).uniform(-0.5, 0.5, test.shape)
for density in densities:
    bits = bits_per_dim(density.score_samples(noisy), n_features=64)
    print(f"{type(density).__name__:<15} {bits:.2f} bits per dimension")

# %%
# New digits
# ----------
# Samples are continuous; rounded, they have the levels of the table.


def show(ax, rows, title, n_columns=10):
    framed = np.pad(rows.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    tiles = framed.reshape(-1, n_columns, 10, 10).transpose(0, 2, 1, 3).reshape(-1, n_columns * 10)
    ax.imshow(tiles, cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
    ax.set_title(title)
    ax.set_axis_off()


fig, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
show(axes[0], test[:120], "held-out digits")
for ax, density in zip(axes[1:], densities, strict=True):
    show(ax, np.rint(density.sample(120, random_state=0)), f"samples of {type(density).__name__}")
plt.show()

# %%
# Likely and unlikely digits
# --------------------------
# ``score_samples`` gives the log-density at each image as it is. The likeliest of the held-out digits are plain strokes, whose
# pixels are easy to foretell, and the least likely have many bends and greys. So a density says how usual the pixels of an
# image are, which isn't the same as how well a person can read it.

order = np.argsort(densities[0].score_samples(test))
fig, axes = plt.subplots(1, 2, figsize=(9, 1.8), layout="constrained")
show(axes[0], test[order[:30]], "least likely")
show(axes[1], test[order[-30:]], "likeliest")
plt.show()
