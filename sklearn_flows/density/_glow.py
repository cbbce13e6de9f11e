"""Glow."""

from ..flows import glow, glow_of_images
from ._base import BaseFlowDensity
from ._images import IMAGE_CONSTRAINTS, resolve_n_levels


class GlowDensity(BaseFlowDensity):
    """Density of a table, or of images, by Glow, a flow of affine couplings and learned linear maps [1]_.

    A step scales and shifts each column (ActNorm), mixes all columns by an invertible matrix, and shifts and scales half of
    them by amounts that a neural network chooses from the other half. Several steps carry the table to a standard normal
    distribution, and the change-of-variables formula gives the exact density. Over images the steps act on channels, at each
    position alike, and the networks are convolutional: the matrix is the invertible 1x1 convolution.

    Parameters
    ----------
    n_transforms : int, default=8
        Number of steps; of images, at each level.
    image_shape : tuple of (int, int, int), default=None
        Channels, height and width of the images, where each row is an image: the array of this shape, flattened in C order.
        Height and width must be even. None means a table.
    n_levels : int or "auto", default="auto"
        Number of levels of a flow over images. Each works on images of half the height and width of the level before, and but
        for the last one half of its channels become latents. "auto" is up to 3, as long as the last level has at least 2x2
        positions.
    hidden_layer_sizes : tuple of int, default=(128, 128)
        Width of each hidden layer of the conditioners; of images, its channels.
    activation : {"relu", "tanh", "silu", "gelu", "elu"}, default="silu"
        Activation of the conditioners.
    margins : {"auto", "linear", "bent", "smooth"}, default="auto"
        What is done with each column first: standardised; bent too, by an inverse hyperbolic sine, if its tails are clearly
        heavier than a Gaussian's; or turned into a normal one by a kernel density estimate. "auto" tries these. Of images,
        what is done with the logit of each pixel, and "auto" is "smooth".
    base : {"auto", "normal", "student", "mixture"}, default="auto"
        What training starts from: a single Gaussian; a multivariate Student t distribution, whose tails the held-out rows
        choose; or a mixture of these, whose number of components they choose too. Where none are held out, a Gaussian. "auto"
        tries these. Of images, it is "mixture" for up to 1,024 pixels, and otherwise "normal".
    n_teachers : int or "auto", default="auto"
        How many times, at most 10, a mixture of flows and simpler densities is fitted, each time without another tenth of the
        rows. The flow then learns from rows that this mixture draws, with the table's own among them, and comes close to it:
        with few rows it becomes far better than by learning from these alone, which is what 0 does. With 1, the tenth that was
        left out tells how far to follow the mixture. "auto" is 10 for 100 distinct rows, 6 for 150, 2 for 334 to 1,000, 1 up to
        3,000 and 0 otherwise; with up to three columns 10 up to 200 rows and 4 for 500. Of images, always 0.
    max_time : float, default=None
        Seconds that a fit may take. The learning rate then falls to zero in the time there is, and the fitted flow depends on
        how fast the machine is. None sets no limit.
    max_iter : int or "auto", default="auto"
        Number of epochs, over which the learning rate warms up and falls to zero. "auto" chooses it from the number of rows;
        where ``max_time`` is given, it sets no limit. An epoch visits each image up to 10 times, each time with other noise.
    batch_size : int or "auto", default="auto"
        Largest batch. "auto" chooses it from the number of rows.
    learning_rate : float or "auto", default="auto"
        Peak of the learning rate. "auto" is 1e-3, and 1e-2 where the flow learns from a teacher and for images.
    optimizer : {"auto", "adamw", "muon"}, default="auto"
        What takes the steps of the networks' weights; Muon orthogonalises them, see ``NeuralSplineFlowDensity``. "auto" is
        "muon" where the flow learns from a teacher and "adamw" otherwise.
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
        Where to train: a torch device such as "cpu" or "cuda:1". "auto" is CUDA where there is one, for images or with 100,000
        rows or more: smaller tables are trained as fast on the CPU. The fitted flow lives on the CPU.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the held-out rows, the order of the batches and the noise of pixels. Pass an int for
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
    encoding_ : TableEncoding or ImageEncoding
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
    RealNVPDensity : The same couplings without the linear maps; over images it has checkerboard masks, too.
    NeuralSplineFlowDensity : Splines in place of affine maps: more flexible.
    sklearn_flows.metrics.bits_per_dim : The measure of densities of images.

    Notes
    -----
    Columns are standardised, a linear map whitens them by their shrunk covariance, and all other layers start as the identity:
    training begins at a multivariate Gaussian and departs from it. ActNorm is set by the data in this way: what
    it sees has mean 0 and, but for the shrinkage, variance 1, so that it starts as the identity. The matrices are products of
    a fixed random permutation and triangular factors, whose log-determinant is a sum.

    Images: pixels are levels, such as the integers from 0 to 255, and a level is the middle of a cell that is as wide as the
    step to the next one. In training, uniform noise fills the cells [2]_ (section 3.1); where the values lie on no grid, the
    cells are a 65,535th of their range, and hardly matter. Then all pixels take the logit over the interval that the cells of
    all images fill, widened by a twentieth on both sides, and each is mapped as ``margins`` says. The map that whitens comes
    last, after the convolutions: it mixes all pixels. ``score_samples`` adds no noise: it gives the log-density at the row as
    it is, so in the middle of the cells for a row of levels. A bound of the bits that levels take needs noise, and is one
    line: ``bits_per_dim(density.score_samples(X + rng.uniform(-0.5, 0.5, X.shape)), X.shape[1])``. Outside the interval the
    density is zero. ``sample`` draws continuous pixels in the interval; rounded and clipped they are levels.

    References
    ----------
    .. [1] Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018.
    .. [2] Theis, van den Oord and Bethge, "A note on the evaluation of generative models", ICLR 2016.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklearn_flows import GlowDensity
    >>> X, _ = make_moons(500, noise=0.1, random_state=0)
    >>> density = GlowDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:2]).shape
    (2,)
    >>> density.sample(3, random_state=0).shape
    (3, 2)
    """

    _parameter_constraints = {**BaseFlowDensity._parameter_constraints, **IMAGE_CONSTRAINTS}

    def __init__(
        self,
        n_transforms=8,
        *,
        image_shape=None,
        n_levels="auto",
        hidden_layer_sizes=(128, 128),
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
        self.image_shape = image_shape
        self.n_levels = n_levels
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

    def _build_flow(self, whitening, base, generator):
        if self.image_shape is None:
            return glow(
                whitening,
                n_transforms=self.n_transforms,
                hidden_layer_sizes=self.hidden_layer_sizes,
                activation=self.activation,
                generator=generator,
                base=base,
            )
        return glow_of_images(
            whitening,
            image_shape=tuple(self.image_shape),
            n_levels=resolve_n_levels(self.n_levels, self.image_shape),
            n_transforms=self.n_transforms,
            hidden_layer_sizes=self.hidden_layer_sizes,
            activation=self.activation,
            generator=generator,
            base=base,
        )
