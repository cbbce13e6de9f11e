import torch

from sklearn_flows.transforms import LULinear, Permutation


def test_permutation_takes_features_in_its_order():
    x = torch.tensor([[10.0, 20.0, 30.0]])
    z, _ = Permutation(torch.tensor([2, 0, 1])).forward(x)
    assert z.tolist() == [[30.0, 10.0, 20.0]]


def test_lu_linear_is_the_product_of_its_factors(generator, randomise):
    linear = randomise(LULinear(4), generator)
    lower = torch.tril(linear.lower, diagonal=-1) + torch.eye(4)
    upper = torch.triu(linear.upper, diagonal=1) + torch.diag(linear.log_diagonal.exp())
    x = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    z, log_det = linear.forward(x)
    torch.testing.assert_close(z, x @ (lower @ upper).T + linear.bias, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(lower @ upper)[1].expand(7), rtol=1e-13, atol=1e-13)


def test_lu_linear_starts_as_the_triangular_matrix_given(generator):
    # Exact in float32: the parameters' own type.
    matrix = torch.tensor([[1.0, 0, 0], [0.5, 1.0, 0], [-0.25, 2.0, 1.0]], dtype=torch.float64)
    linear = LULinear.from_lower_triangular(matrix).double()
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(linear.forward(x)[0], x @ matrix.T, rtol=1e-14, atol=1e-14)


def test_lu_linear_starts_as_a_matrix_with_any_positive_diagonal(generator):
    matrix = torch.randn(5, 5, generator=generator, dtype=torch.float64).tril(-1) + torch.diag(torch.logspace(-3, 3, 5))
    linear = LULinear.from_lower_triangular(matrix).double()
    lower, upper = linear.lower.tril(-1) + torch.eye(5), torch.diag(linear.log_diagonal.exp())
    # The parameters are rounded to float32.
    torch.testing.assert_close(lower @ upper, matrix, rtol=1e-6, atol=1e-6)
