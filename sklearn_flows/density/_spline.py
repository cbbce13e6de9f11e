"""Neural spline flows."""

from numbers import Integral, Real

from ..flows import spline_flow
from ..utils._sklearn import Interval, StrOptions
from ._base import BaseFlowDensity
from ._defaults import MAX_ROWS_FOR_ADAMW, LearningRates, default_spline_size


class NeuralSplineFlowDensity(BaseFlowDensity):
    """Density of a table by a neural spline flow [1]_.

    Each column is mapped by a monotone spline whose shape a neural network chooses from the columns before it. Several such
    layers carry the table to a standard normal distribution, and the change-of-variables formula gives the exact density.

    Parameters
    ----------
    n_transforms : int or "auto", default="auto"
        Number of nonlinear layers. "auto" is 3, and 5 for more than 50,000 distinct rows.
    layer : {"autoregressive", "coupling"}, default="autoregressive"
        Kind of the layers. Autoregressive layers fit better; coupling layers sample as fast as they score.
    n_bins : int or "auto", default="auto"
        Number of bins of each spline. "auto" is 5, and 8 for more than 3,000 distinct rows.
    tail_bound : float, default=5.0
        The splines act between ``-tail_bound`` and ``tail_bound``, in units of the whitened columns; beyond that each is the
        identity.
    hidden_layer_sizes : tuple of int or "auto", default="auto"
        Width of each hidden layer of the conditioners. "auto" is (64, 64) up to 1,000 distinct rows of up to 16 columns, and
        (128, 128) otherwise.
    activation : {"relu", "tanh", "silu", "gelu", "elu"}, default="silu"
        Activation of the conditioners.
    margins : {"auto", "linear", "bent", "smooth"}, default="auto"
        What is done with each column first: standardised; bent too, by an inverse hyperbolic sine, if its tails are clearly
        heavier than a Gaussian's; or turned into a normal one by a kernel density estimate. "auto" tries these.
    base : {"auto", "normal", "student", "mixture"}, default="auto"
        What training starts from: a single Gaussian; a multivariate Student t distribution, whose tails the held-out rows
        choose; or a mixture of these, whose number of components they choose too. Where none are held out, a Gaussian. "auto"
        tries these.
    n_teachers : int or "auto", default="auto"
        How many times, at most 10, a mixture of flows and simpler densities is fitted, each time without another tenth of the
        rows. The flow then learns from rows that this mixture draws, with the table's own among them, and comes close to it:
        with few rows it becomes far better than by learning from these alone, which is what 0 does. With 1, the tenth that was
        left out tells how far to follow the mixture. "auto" is 10 for 100 distinct rows, 6 for 150, 2 for 334 to 1,000, 1 up to
        3,000 and 0 otherwise; with up to three columns 10 up to 200 rows and 4 for 500.
    max_time : float, default=None
        Seconds that a fit may take. The learning rate then falls to zero in the time there is, the best of several starts takes
        the place of teachers where these would take longer, and the fitted flow depends on how fast the machine is. None sets
        no limit.
    max_iter : int or "auto", default="auto"
        Number of epochs, over which the learning rate warms up and falls to zero. "auto" chooses it from the number of rows;
        where ``max_time`` is given, it sets no limit.
    batch_size : int or "auto", default="auto"
        Largest batch. "auto" chooses it from the number of rows.
    learning_rate : float or "auto", default="auto"
        Peak of the learning rate. "auto" is 5e-3, and 1e-2 where the flow learns from a teacher.
    optimizer : {"auto", "adamw", "muon"}, default="auto"
        What takes the steps of the networks' weights. Muon [2]_ orthogonalises them, which fits many rows much better in as
        many steps, and learns few rows by heart. "auto" is "muon" where the flow learns from a teacher and for more than 3,000
        distinct rows, and "adamw" otherwise.
    weight_decay : float, default=1e-4
        Decoupled weight decay on the weights of the networks.
    early_stopping : bool or "auto", default="auto"
        Whether to hold out rows, to stop when their likelihood no longer rises and to keep the weights of the best epoch.
        "auto" does so from 100 distinct rows on, and where ``X_val`` is given.
    validation_fraction : float, default=0.1
        Share of the distinct rows to hold out.
    n_iter_no_change : int or float, default=20
        Patience: the number of epochs without a rise of the validation score after which to go back to the best epoch and on
        with a fifth of the learning rate; after half as many without a rise, once more; then to stop. Infinity never stops, but
        keeps the best epoch.
    tol : float, default=1e-4
        Smallest rise of the validation score that counts, in nats.
    warm_start : bool, default=False
        Whether a further ``fit`` goes on from the weights and the scaling of the last one.
    verbose : int, default=0
        0 is silent, 1 tells about ten times in a fit how it goes, 2 after every epoch. Before scikit-learn 1.9 a tqdm bar takes
        the place of the lines where tqdm is installed; from 1.9 on, see ``sklearn.callback.ProgressBar`` for bars.
    device : str, default="auto"
        Where to train: a torch device such as "cpu" or "cuda:1". "auto" is CUDA where there is one and 100,000 rows or more
        to train with: fewer are trained as fast on the CPU. The fitted flow lives on the CPU.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the held-out rows and the order of the batches. Pass an int for reproducible fits.

    Attributes
    ----------
    flow_ : Flow
        The fitted flow over the encoded columns that vary, a ``torch.nn.Module`` in float64 on the CPU.
    margins_ : str
        What was done with the columns.
    base_ : str
        What training has started from.
    n_transforms_ : int
        Number of nonlinear layers.
    hidden_layer_sizes_ : tuple of int
        Width of each hidden layer of the conditioners.
    n_bins_ : int
        Number of bins of each spline.
    n_teachers_ : int
        How many times the mixture was fitted that the flow has learned from.
    optimizer_ : {"adamw", "muon"}
        What has taken the steps of the networks' weights.
    encoding_ : TableEncoding
        The fitted map of the table's columns to the space of ``flow_``.
    n_iter_ : int
        Number of epochs, over all fits since the last cold start.
    stop_reason_ : {"max_iter", "max_time", "early_stopping", "callback", "interrupted"}
        Why the last fit ended.
    batch_size_ : int
        Largest batch of the last fit.
    max_iter_ : int or None
        Number of epochs that the last fit had planned; None if only its time was limited.
    loss_curve_ : list of float
        Mean negative log-likelihood of the training rows in each epoch, in nats in the units of ``X``.
    validation_scores_ : list of float or None
        Mean log-likelihood of the held-out rows after each epoch; None without held-out rows.
    best_validation_score_ : float or None
        Mean log-likelihood of the held-out rows under the weights that were kept; None without held-out rows.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when ``X`` has column names that are all strings.

    See Also
    --------
    MAFDensity : Affine autoregressive layers: faster, less flexible.
    RealNVPDensity : Affine coupling layers: fastest to sample.
    sklearn.mixture.GaussianMixture : Density by a mixture of Gaussians.

    Notes
    -----
    Columns are standardised, a linear map whitens them by their shrunk covariance, and all other layers start as the identity:
    training begins at a multivariate Gaussian and departs from it. Between two
    layers a random permutation and an LU-parametrised linear map mix the columns.

    References
    ----------
    .. [1] Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019.
    .. [2] Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, "Muon: An optimizer for hidden layers in neural networks",
       2024, https://kellerjordan.github.io/posts/muon/.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklearn_flows import NeuralSplineFlowDensity
    >>> X, _ = make_moons(500, noise=0.1, random_state=0)
    >>> density = NeuralSplineFlowDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:2]).shape
    (2,)
    >>> density.sample(3, random_state=0).shape
    (3, 2)
    """

    _learning_rates = LearningRates(rows=5e-3)
    _max_rows_for_adamw = MAX_ROWS_FOR_ADAMW

    _parameter_constraints = {
        **BaseFlowDensity._parameter_constraints,
        "n_transforms": [*BaseFlowDensity._parameter_constraints["n_transforms"], StrOptions({"auto"})],
        "layer": [StrOptions({"autoregressive", "coupling"})],
        "learning_rate": [*BaseFlowDensity._parameter_constraints["learning_rate"], StrOptions({"auto"})],
        "n_bins": [Interval(Integral, 2, 256, closed="both"), StrOptions({"auto"})],
        "tail_bound": [Interval(Real, 1e-3, 1e3, closed="both")],
        "hidden_layer_sizes": [*BaseFlowDensity._parameter_constraints["hidden_layer_sizes"], StrOptions({"auto"})],
    }

    def __init__(
        self,
        n_transforms="auto",
        *,
        layer="autoregressive",
        n_bins="auto",
        tail_bound=5.0,
        hidden_layer_sizes="auto",
        activation="silu",
        margins="auto",
        base="auto",
        n_teachers="auto",
        max_time=None,
        max_iter="auto",
        batch_size="auto",
        learning_rate="auto",
        optimizer="auto",
        weight_decay=1e-4,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
        tol=1e-4,
        warm_start=False,
        verbose=0,
        device="auto",
        random_state=None,
    ):
        self.n_transforms = n_transforms
        self.layer = layer
        self.n_bins = n_bins
        self.tail_bound = tail_bound
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.margins = margins
        self.base = base
        self.n_teachers = n_teachers
        self.max_time = max_time
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose
        self.device = device
        self.random_state = random_state

    def _choose_size(self, n_rows, n_features):
        default = default_spline_size(n_rows, n_features)
        given = {name: getattr(self, name) for name in default}
        return default | {name: value for name, value in given.items() if not isinstance(value, str)}

    def _build_flow(self, whitening, base, generator):
        return spline_flow(
            whitening,
            layer=self.layer,
            n_bins=self.n_bins_ if self.n_bins == "auto" else self.n_bins,
            tail_bound=self.tail_bound,
            n_transforms=self.n_transforms_ if self.n_transforms == "auto" else self.n_transforms,
            hidden_layer_sizes=self._widths_of_layers(),
            activation=self.activation,
            generator=generator,
            base=base,
        )
