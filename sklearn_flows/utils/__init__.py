"""Tools around scikit-learn; :mod:`sklearn_flows.utils.estimator_checks` is public."""
