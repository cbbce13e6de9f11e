"""
Outliers: from a table to alarms and their reasons
==================================================

``FlowOutlierDetector`` learns what normal rows look like. Here these are measurements of cell nuclei from benign tumours;
malignant ones, which it has never seen, should raise an alarm. The steps: train, look at the scores, choose a threshold, raise
alarms whose error rate is known, and say why.
"""

# %%
# Train
# -----
# Three quarters of the benign tumours are to learn from. The others, and all malignant ones, come later.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from sklearn_flows import FeatureSurpriseDisplay, FlowOutlierDetector

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X = X.filter(like="worst ").rename(columns=lambda name: name.removeprefix("worst "))  # of the largest nuclei
benign, malignant = X[y == 1], X[y == 0]
train, benign_test = train_test_split(benign, random_state=0)

detector = FlowOutlierDetector(random_state=0).fit(train)
print(f"{len(train)} rows to learn from, {len(benign_test)} benign and {len(malignant)} malignant ones to score")

# %%
# Scores
# ------
# A score is a mean of log-densities, in nats: the lower, the stranger is the row. How well it separates what the detector was
# never told to separate, as the area under the ROC curve:

scores = {name: detector.score_samples(rows) for name, rows in (("benign", benign_test), ("malignant", malignant))}
is_benign = np.repeat([1, 0], [len(benign_test), len(malignant)])
forest = IsolationForest(random_state=0).fit(train)
forest_scores = np.concatenate([forest.score_samples(rows) for rows in (benign_test, malignant)])
print(f"FlowOutlierDetector: {roc_auc_score(is_benign, np.concatenate(list(scores.values()))):.3f}")
print(f"IsolationForest:     {roc_auc_score(is_benign, forest_scores):.3f}")

# %%
# A threshold
# -----------
# At first the threshold is Tukey's fence of the training rows' scores. If a share of alarms is asked for instead, the
# threshold moves without another fit.

fence = detector.offset_
ten_percent = detector.set_contamination(0.1).offset_
print(f"Training rows under the threshold: {(detector.predict(train) == -1).mean():.3f}")
print(f"New benign rows under it:          {(detector.predict(benign_test) == -1).mean():.3f}")
print(f"Malignant rows under it:           {(detector.predict(malignant) == -1).mean():.3f}")

bins = np.linspace(min(map(np.min, scores.values())).clip(-40), max(map(np.max, scores.values())), 50)
_, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
for name, values in scores.items():
    ax.hist(values.clip(bins[0]), bins, alpha=0.6, label=name)
ax.axvline(fence, color="black", label="Tukey's fence")
ax.axvline(ten_percent, color="black", linestyle="--", label="a tenth of the training rows")
ax.set_xlabel("score in nats (what is lower is in the first bin)")
ax.set_ylabel("rows")
ax.legend()
plt.show()

# %%
# Alarms whose error rate is known
# --------------------------------
# A p-value compares a row with training rows, as densities score them that haven't seen them. Of new normal rows a share of at
# most about 0.05 has one of at most 0.05. Where many rows are tested, ``predict_fdr`` holds the share of false alarms among all
# alarms. Here malignant rows are mixed into many more benign ones.

batch = pd.concat([benign_test, malignant[:20]])
is_malignant = np.arange(len(batch)) >= len(benign_test)
p_values = detector.p_values(batch)
alarms = detector.predict_fdr(batch, alpha=0.2) == -1
print(f"Share of benign rows with p <= 0.05: {(p_values[~is_malignant] <= 0.05).mean():.3f}")
print(f"{alarms.sum()} alarms, {(alarms & ~is_malignant).sum()} of them false")
print(f"{(alarms & is_malignant).sum()} of {is_malignant.sum()} malignant rows found")

# %%
# Reasons
# -------
# ``explain`` gives columns other values, the one that gains most first, until the row is ordinary. What they gained adds up to
# the difference of the scores. With each comes the range in which the value would have been ordinary, given the other columns:
# this nucleus has too large an area for its perimeter.

alarming = malignant[detector.predict(malignant) == -1]
FeatureSurpriseDisplay.from_estimator(detector, alarming.iloc[[0]])
plt.show()

# %%
# For several rows the same as a heat map.

FeatureSurpriseDisplay.from_estimator(detector, alarming[:25])
plt.show()
