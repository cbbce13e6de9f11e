"""Matrix products for rows that come in panels.

A *panel* is ``LANES`` rows of a table, or of a layer's units, with the rows of each unit next to each other: the array
``(n_panels, n_units, LANES)``, here as one long axis. What a product reads of a panel is then one short piece of memory, which
stays in the innermost cache, while each weight that meets it is read once. General libraries copy their arguments into such
pieces in every call. For layers of a few dozen units that costs as much as the product; and they can't leave out the weights
that don't exist, which in an autoregressive network are half of them.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._functions import inner
from ._vector import REGISTER_BYTES, Vector, element_pointer, load, load_vector, splat, store_vector, total

LANES = 32  # rows of a panel
# Vectors across a tile of a product, and its rows: as many as there are registers for their sums. A low tile serves where there
# are few rows.
_N_ACROSS = 2
TILE_HEIGHT = 12 if REGISTER_BYTES == 64 else 6
LOW_TILE_HEIGHT = 4


@intrinsic
def vector_width(typing_context, array):
    """Number of elements in a vector of an array's precision."""

    def emit(context, builder, sig, values):
        return ir.Constant(ir.IntType(64), Vector(sig.args[0].dtype).width)

    return types.intp(array), emit


@inner
def tile_width(array):
    """Number of columns of a tile."""
    return _N_ACROSS * vector_width(array)


def _tile(height, start):
    """Make a function that computes a tile of a product: ``c = a @ b``, plus a bias, or plus what c was, by ``start``.

    Its arguments are arrays, each with the position of its first element and the distances between elements: of ``a`` from row
    to row and from term to term of the sum, of ``b`` from term to term, of ``c`` from row to row. The sum has ``n_outer`` parts
    of ``n_terms`` terms each; ``a_jump`` and ``b_jump`` are the distances between parts. Where ``c`` has fewer rows than the
    tile, the last one is computed more than once.
    """

    @intrinsic
    def tile(
        typing_context,
        a,
        a_position,
        a_row,
        a_term,
        a_jump,
        b,
        b_position,
        b_term,
        b_jump,
        n_terms,
        n_outer,
        c,
        c_position,
        c_row,
        n_rows,
        bias,
        bias_position,
    ):
        vector = Vector(c.dtype)

        def emit(context, builder, sig, values):
            (a, a_position, a_row, a_term, a_jump, b, b_position, b_term, b_jump, n_terms, n_outer) = values[:11]
            (c, c_position, c_row, n_rows, bias, bias_position) = values[11:]
            a_start = element_pointer(context, builder, sig.args[0], a, a_position)
            b_start = element_pointer(context, builder, sig.args[5], b, b_position)
            c_start = element_pointer(context, builder, sig.args[11], c, c_position)
            width = ir.Constant(n_rows.type, vector.width)
            last = builder.sub(n_rows, ir.Constant(n_rows.type, 1))

            def clamped(i):
                number = ir.Constant(n_rows.type, i)
                return builder.select(builder.icmp_signed("<", number, last), number, last)

            rows = [clamped(i) for i in range(height)]
            a_rows = [builder.gep(a_start, [builder.mul(row, a_row)]) for row in rows]
            c_places = []
            for row in rows:
                place = builder.gep(c_start, [builder.mul(row, c_row)])
                c_places.append([place, builder.gep(place, [width])])
            sums = [[cgutils.alloca_once(builder, vector.real) for _ in range(_N_ACROSS)] for _ in rows]
            for i, row in enumerate(rows):
                if start == "bias":
                    pointer = element_pointer(context, builder, sig.args[15], bias, builder.add(bias_position, row))
                    value = splat(builder, builder.load(pointer), vector.width)
                for j in range(_N_ACROSS):
                    if start == "sum":
                        value = load_vector(builder, c_places[i][j], vector)
                    elif start == "zero":
                        value = ir.Constant(vector.real, [0.0] * vector.width)
                    builder.store(value, sums[i][j])
            with cgutils.for_range(builder, n_outer) as outer:
                a_offset, b_offset = builder.mul(outer.index, a_jump), builder.mul(outer.index, b_jump)
                with cgutils.for_range(builder, n_terms) as inner:
                    a_term_offset = builder.add(a_offset, builder.mul(inner.index, a_term))
                    b_place = builder.gep(b_start, [builder.add(b_offset, builder.mul(inner.index, b_term))])
                    across = [
                        load_vector(builder, b_place, vector),
                        load_vector(builder, builder.gep(b_place, [width]), vector),
                    ]
                    for i in range(height):
                        scalar = splat(builder, builder.load(builder.gep(a_rows[i], [a_term_offset])), vector.width)
                        for j in range(_N_ACROSS):
                            product = builder.fmul(scalar, across[j], flags=("contract",))
                            builder.store(builder.fadd(builder.load(sums[i][j]), product, flags=("contract",)), sums[i][j])
            for i in range(height):
                for j in range(_N_ACROSS):
                    store_vector(builder, builder.load(sums[i][j]), c_places[i][j], vector)
            return context.get_dummy_value()

        n = types.intp
        return types.void(a, n, n, n, n, b, n, n, n, n, n, c, n, n, n, bias, n), emit

    return tile


_high_bias, _low_bias = _tile(TILE_HEIGHT, "bias"), _tile(LOW_TILE_HEIGHT, "bias")
_high_zero, _low_zero = _tile(TILE_HEIGHT, "zero"), _tile(LOW_TILE_HEIGHT, "zero")
_high_sum = _tile(TILE_HEIGHT, "sum")


@inner
def linear(weights, position, row, bias_position, first, last, stairs, seen, x, x_position, y, y_position):
    """Units ``first`` to ``last`` of a linear layer, for one panel: ``y = W x + b``.

    ``stairs[seen + i]`` is how many inputs unit i sees, the first ones; W and b are parts of one array.
    """
    width = tile_width(y)
    while first < last:
        n = min(TILE_HEIGHT, last - first)
        n_terms = stairs[seen + first + n - 1]
        a, b, c = position + first * row, bias_position + first, y_position + first * LANES
        for lane in range(0, LANES, width):
            if n > LOW_TILE_HEIGHT:
                _high_bias(
                    *(weights, a, row, 1, 0, x, x_position + lane, LANES, 0, n_terms, 1),
                    *(y, c + lane, LANES, n, weights, b),
                )
            else:
                _low_bias(
                    *(weights, a, row, 1, 0, x, x_position + lane, LANES, 0, n_terms, 1),
                    *(y, c + lane, LANES, n, weights, b),
                )
        first += n


@inner
def linear_transposed(weights, position, n_in, first, last, n_out, stairs, first_seen_by, y, y_position, x, x_position):
    """The way back through a linear layer to its inputs ``first`` to ``last``, for one panel: ``x = W^T y``.

    ``stairs[first_seen_by + i]`` is the first unit that sees input i, and all after it do.
    """
    width = tile_width(x)
    while first < last:
        n = min(TILE_HEIGHT, last - first)
        unit = stairs[first_seen_by + first]
        a, b, c = position + unit * n_in + first, y_position + unit * LANES, x_position + first * LANES
        for lane in range(0, LANES, width):
            if n > LOW_TILE_HEIGHT:
                _high_zero(
                    *(weights, a, 1, n_in, 0, y, b + lane, LANES, 0, n_out - unit, 1),
                    *(x, c + lane, LANES, n, weights, 0),
                )
            else:
                _low_zero(
                    *(weights, a, 1, n_in, 0, y, b + lane, LANES, 0, n_out - unit, 1),
                    *(x, c + lane, LANES, n, weights, 0),
                )
        first += n


@intrinsic
def _transpose(typing_context, a, a_position, a_row, n_rows, b, b_position, b_row):
    """Transpose a square of as many rows as a vector has elements; from row ``n_rows`` on, the last one serves again."""
    vector = Vector(a.dtype)

    def emit(context, builder, sig, values):
        a, a_position, a_row, n_rows, b, b_position, b_row = values
        width = vector.width
        last = builder.sub(n_rows, ir.Constant(n_rows.type, 1))
        a_start = element_pointer(context, builder, sig.args[0], a, a_position)
        b_start = element_pointer(context, builder, sig.args[4], b, b_position)
        rows = []
        for i in range(width):
            number = ir.Constant(n_rows.type, i)
            row = builder.select(builder.icmp_signed("<", number, last), number, last)
            rows.append(load_vector(builder, builder.gep(a_start, [builder.mul(row, a_row)]), vector))
        # Squares of half the size change places, within each of them squares of a quarter, and so on (Eklundh 1972).
        distance = width // 2
        while distance:
            upper = [i if not i & distance else width + i - distance for i in range(width)]
            lower = [i + distance if not i & distance else width + i for i in range(width)]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), width), mask) for mask in (upper, lower)]
            for i in range(width):
                if not i & distance:
                    pair = rows[i], rows[i + distance]
                    rows[i], rows[i + distance] = (builder.shuffle_vector(*pair, mask) for mask in masks)
            distance //= 2
        for i, row in enumerate(rows):
            place = builder.gep(b_start, [builder.mul(ir.Constant(b_row.type, i), b_row)])
            store_vector(builder, row, place, vector)
        return context.get_dummy_value()

    n = types.intp
    return types.void(a, n, n, n, b, n, n), emit


@inner
def add_weight_gradient(y, y_position, n_out, x, x_position, n_in, n_panels, stairs, seen, out, out_position, work):
    """Add to ``out`` the gradient of a linear layer's weights: ``y @ x^T``, summed over the rows of all panels.

    ``y`` holds the gradients of the layer's units, ``x`` its inputs. Weights that don't exist get none. ``work`` is memory for
    ``(n_panels * LANES + TILE_HEIGHT) * tile_width``.
    """
    width, vector = tile_width(out), vector_width(out)
    tile = n_panels * LANES * width
    for column in range(0, n_in, width):
        n_columns = min(width, n_in - column)
        for panel in range(n_panels):
            for part in range(0, n_columns, vector):
                source = x_position + (panel * n_in + column + part) * LANES
                for lane in range(0, LANES, vector):
                    target = (panel * LANES + lane) * width + part
                    _transpose(x, source + lane, LANES, n_columns - part, work, target, width)
        for first in range(0, n_out, TILE_HEIGHT):
            n = min(TILE_HEIGHT, n_out - first)
            n_seen = stairs[seen + first + n - 1]
            if n_seen <= column:
                continue
            a, c = y_position + first * LANES, out_position + first * n_in + column
            if n_columns == width and stairs[seen + first] >= column + width:
                _high_sum(
                    *(y, a, LANES, 1, n_out * LANES, work, 0, width, LANES * width, LANES, n_panels),
                    *(out, c, n_in, n, out, 0),
                )
            else:
                _high_zero(
                    *(y, a, LANES, 1, n_out * LANES, work, 0, width, LANES * width, LANES, n_panels),
                    *(work, tile, width, n, out, 0),
                )
                for i in range(n):
                    for j in range(min(n_columns, stairs[seen + first + i] - column)):
                        out[c + i * n_in + j] += work[tile + i * width + j]


@inner
def add_bias_gradient(y, y_position, n_out, n_panels, out, out_position):
    """Add to ``out`` the sums over the rows of all panels."""
    for unit in range(n_out):
        lanes = load(y, y_position) * 0.0
        for panel in range(n_panels):
            first = y_position + (panel * n_out + unit) * LANES
            for lane in range(first, first + LANES, vector_width(y)):
                lanes = lanes + load(y, lane)
        out[out_position + unit] += total(lanes)
