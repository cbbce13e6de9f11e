import os

# Pictures without a screen.
os.environ["MPLBACKEND"] = "Agg"
