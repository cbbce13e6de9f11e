"""Continuous normalizing flows trained by flow matching."""

from numbers import Real

from ..flows import continuous_flow
from ..training import FlowMatching
from ..transforms import SMOOTH_ACTIVATIONS
from ..utils._sklearn import Interval, StrOptions
from ._base import BaseFlowDensity

# Of the time, as the field sees it.
N_FREQUENCIES = 3


class FlowMatchingDensity(BaseFlowDensity):
    """Density of a table by a continuous normalizing flow that is trained by flow matching [1]_.

    A neural network says with what velocity a point moves, anywhere and at any time. Draws from a base distribution that
    follow this field from time 0 to time 1 are rows of the table. The field is fitted by a regression on the velocities of
    straight ways from draws to rows: no differential equation is solved in training, so steps are cheap. To score and to draw
    rows takes the solution of one, as for ``FFJORDDensity``.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=(128, 128)
        Width of each hidden layer of the field. For scores, its exact trace costs as much as the network where there are at
        most two, and more in proportion to the number of columns where there are more.
    activation : {"tanh", "silu", "gelu"}, default="silu"
        Activation of the field.
    coupling : {"independent", "optimal"}, default="independent"
        Which draw a row is joined with: any, or, in groups of 128, such that the squared distances are the smallest in all
        [2]_ (mini-batch optimal transport). The latter makes ways straighter, and steps slower.
    rtol, atol : float, default=1e-7
        Tolerances of the adaptive solver: in each step the error of a whitened column, and of the log-density, is at most
        ``atol`` plus ``rtol`` times its value. While it trains, the solver
        is content with what single precision can resolve.
    margins : {"linear", "bent", "smooth", "auto"}, default="bent"
        What is done with each column first: standardised; bent too, by an inverse hyperbolic sine, if its tails are clearly
        heavier than a Gaussian's; or turned into a normal one by a kernel density estimate. "auto" tries these, which takes
        several fits.
    base : {"normal", "student", "mixture", "auto"}, default="mixture"
        What training starts from, and the ways lead from: a single Gaussian; a multivariate Student t distribution, whose tails
        the held-out rows choose; or a mixture of these, whose number of components they choose too. Where none are held out, a
        Gaussian. "auto" tries these, which takes several fits.
    n_teachers : int or "auto", default=0
        How many times, at most 10, a mixture of flows and simpler densities is fitted, each time without another tenth of the
        rows, for the flow to learn from rows that this mixture draws. "auto" does so with 100 to 3,000 rows, as other families
        do by default; here the flows of the mixture alone take many times as long as a fit without.
    max_time : float, default=None
        Seconds that a fit may take. The learning rate then falls to zero in the time there is, the best of several starts takes
        the place of teachers where these would take longer, and the fitted flow depends on how fast the machine is. None sets
        no limit.
    max_iter : int or "auto", default="auto"
        Number of epochs, over which the learning rate warms up and falls to zero. "auto" chooses it from the number of rows;
        where ``max_time`` is given, it sets no limit.
    batch_size : int or "auto", default=1024
        Largest batch. "auto" chooses it from the number of rows.
    learning_rate : float, default=1e-2
        Peak of the learning rate.
    optimizer : {"auto", "adamw", "muon"}, default="auto"
        What takes the steps of the networks' weights; Muon orthogonalises them, see ``NeuralSplineFlowDensity``. "auto" is
        "muon" where the flow learns from a teacher and "adamw" otherwise.
    weight_decay : float, default=0.0
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
        Where to train: a torch device such as "cpu" or "cuda:1". "auto" is CUDA where there is one. The fitted flow lives on
        the CPU.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the held-out rows, the order of the batches and all other draws. Pass an int for
        reproducible fits.

    Attributes
    ----------
    flow_ : Flow
        The fitted flow over the encoded columns that vary, a ``torch.nn.Module`` in float64 on the CPU.
    margins_ : str
        What was done with the columns.
    base_ : str
        What training has started from.
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
        Mean squared error of the field in each epoch, at the times drawn, for each column, in units of the whitened columns. It
        can't reach zero: ways cross.
    validation_scores_ : list of float or None
        Mean log-likelihood of the held-out rows after each epoch; None without held-out rows.
    best_validation_score_ : float or None
        Mean log-likelihood of the held-out rows under the weights that were kept; None without held-out rows.
    n_function_evaluations_ : float
        How often the field is computed to score a row, in the mean over some of the held-out rows, or of the training rows
        where none are held out.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when ``X`` has column names that are all strings.

    See Also
    --------
    FFJORDDensity : The same flow, trained by maximum likelihood.
    NeuralSplineFlowDensity : A discrete flow: much faster scores.

    Notes
    -----
    Columns are standardised, a linear map whitens them by their shrunk covariance, and the field starts at zero: training
    begins at the base distribution. An epoch visits each row ten times, each time with other draws and times, late ones more
    often where the start is a single distribution: the field is smooth there. After it the held-out rows are scored by the
    solver, and their likelihood decides when training stops and which weights are kept.

    The scores come from torchdiffeq's method of Dormand and Prince with steps chosen for each row by its own error, so a row's
    score doesn't depend on its batch. Where the tolerance can't be met in 5,000 steps, an error says so.

    References
    ----------
    .. [1] Lipman, Chen, Ben-Hamu, Nickel and Le, "Flow Matching for Generative Modeling", ICLR 2023.
    .. [2] Tong, Fatras, Malkin, Huguet, Zhang, Rector-Brooks, Wolf and Bengio, "Improving and Generalizing Flow-Based
       Generative Models with Minibatch Optimal Transport", TMLR 2024.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklearn_flows import FlowMatchingDensity
    >>> X, _ = make_moons(500, noise=0.1, random_state=0)
    >>> density = FlowMatchingDensity(max_iter=5, random_state=0).fit(X)
    >>> density.score_samples(X[:2]).shape
    (2,)
    >>> density.sample(3, random_state=0).shape
    (3, 2)
    """

    # The exact trace of a field with kinks has jumps, which no solver takes in few steps.
    _parameter_constraints = {
        **{name: value for name, value in BaseFlowDensity._parameter_constraints.items() if name != "n_transforms"},
        "activation": [StrOptions(set(SMOOTH_ACTIVATIONS))],
        "coupling": [StrOptions({"independent", "optimal"})],
        "rtol": [Interval(Real, 1e-13, 1, closed="both")],
        "atol": [Interval(Real, 1e-13, 1, closed="both")],
    }

    _n_visits = 10
    _share_of_steps = 1.0
    _min_rows_for_cuda = 0

    def __init__(
        self,
        hidden_layer_sizes=(128, 128),
        *,
        activation="silu",
        coupling="independent",
        rtol=1e-7,
        atol=1e-7,
        margins="bent",
        base="mixture",
        n_teachers=0,
        max_time=None,
        max_iter="auto",
        batch_size=1024,
        learning_rate=1e-2,
        optimizer="auto",
        weight_decay=0.0,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
        tol=1e-4,
        warm_start=False,
        verbose=0,
        device="auto",
        random_state=None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.coupling = coupling
        self.rtol = rtol
        self.atol = atol
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

    def _build_flow(self, whitening, base, generator):
        return continuous_flow(
            whitening,
            hidden_layer_sizes=self.hidden_layer_sizes,
            activation=self.activation,
            n_frequencies=N_FREQUENCIES,
            rtol=self.rtol,
            atol=self.atol,
            generator=generator,
            base=base,
        )

    def _build_objective(self, flow, generator):
        return FlowMatching(flow, self.coupling, generator)
