"""What lets scikit-learn's test modules be imported here."""


def pytest_configure(config):
    # Marks that scikit-learn's own configuration registers: its test modules apply them on import.
    for mark in ("thread_unsafe", "no_check_spmatrix"):
        config.addinivalue_line("markers", f"{mark}: scikit-learn's own, without a meaning here")
