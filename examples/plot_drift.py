"""
Monitor drift
=============

A stream of rows, such as the readings of sensors, comes in batches. ``FlowOutlierDetector`` is fitted to a period in which all
was well. Then each batch is asked two questions: are single rows strange, and has the batch as a whole moved? The second is the
more sensitive one: rows that are each nearly ordinary may together be at the wrong place.
"""

# %%
# A stream
# --------
# Four sensors see the same two causes. From batch 30 on the third sensor slowly loses its calibration, so it no longer agrees
# with the others, but its values stay within their range. In batch 20 a few rows are wrong altogether.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kstest

from sklearn_flows import FeatureSurpriseDisplay, FlowOutlierDetector

rng = np.random.RandomState(0)
names = ["pressure", "flow", "temperature", "power"]
n_batches, batch_size, drift_from = 60, 100, 30
mixing = np.array([[1.0, 0.3], [0.8, -0.5], [0.2, 1.0], [0.9, 0.6]])


def readings(n_rows):
    causes = np.column_stack([rng.standard_normal(n_rows), rng.gamma(4.0, 0.5, n_rows)])
    return causes @ mixing.T + 0.15 * rng.standard_normal((n_rows, 4))


reference = readings(5000)
batches = [readings(batch_size) for _ in range(n_batches)]
batches[20][:5] += [0.0, 3.0, 0.0, 0.0]
for k in range(drift_from, n_batches):
    batches[k][:, 2] += 0.02 * (k - drift_from)

detector = FlowOutlierDetector(random_state=0).fit(reference)

# %%
# Single rows, and batches
# ------------------------
# Rows with alarms by ``predict_fdr`` are single outliers. For the batch as a whole: p-values of rows like those of the
# reference period are uniform, whatever the density is worth (nearly so, as they are counted with a thousand rows). A batch has
# drifted if its p-values are smaller than that. A one-sided Kolmogorov-Smirnov test tells, whose level is divided by the number
# of batches (Bonferroni).

p_values = [detector.p_values(batch) for batch in batches]
n_alarms = np.array([(detector.predict_fdr(batch, alpha=0.05) == -1).sum() for batch in batches])
drift = np.array([kstest(p, "uniform", alternative="greater").pvalue for p in p_values])
limit = 0.05 / n_batches
first = int(np.argmax(drift < limit))
inside = (np.abs(batches[first] - reference.mean(axis=0)) < 3 * reference.std(axis=0)).all(axis=1).mean()
print(f"Single rows: alarms in batch {', '.join(map(str, np.flatnonzero(n_alarms[:drift_from])))} before the drift begins")
print(
    f"Drift: noticed in batch {first}, when the sensor is off by {0.02 * (first - drift_from):.2f}, "
    f"{0.02 * (first - drift_from) / reference[:, 2].std():.2f} of its standard deviation"
)
print(f"In that batch {inside:.0%} of the rows have all values within three standard deviations")

figure, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
axes[0].bar(np.arange(n_batches), n_alarms, color="tab:red")
axes[0].set_ylabel("rows with alarms")
axes[1].semilogy(drift.clip(1e-20), color="tab:blue")
axes[1].axhline(limit, color="black", linestyle="--", label="level of the test")
axes[1].axvline(drift_from, color="gray", linestyle=":", label="the drift begins")
axes[1].set_ylabel("p-value of the batch")
axes[1].set_xlabel("batch")
axes[1].legend()
plt.show()

# %%
# What drifts
# -----------
# In the last batches, the columns that make rows strange name the sensor.

late = np.vstack(batches[-5:])
worst = late[np.argsort(detector.score_samples(late))[:30]]
reasons = detector.explain(worst)
shares = reasons.contributions.sum(axis=0) / reasons.contributions.sum()
print(", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True)))

display = FeatureSurpriseDisplay(contributions=reasons.contributions, values=worst, ranges=reasons.ranges, feature_names=names)
display.plot()
plt.show()
