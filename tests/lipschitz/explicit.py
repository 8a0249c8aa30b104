"""Independent references: the matrix of a convolution entry by entry, exact and 60-digit norms.

How the rounding of a reference is treated: LAPACK's σ_max is off by far less than 1e-12 relative,
and published bounds carry a slack of 1e-6. A test that the *proved* bound (without slack) is not
below LAPACK's allows 1e-12 therefore, and one against mpmath's SVD at 60 digits allows nothing.
"""

import mpmath
import numpy as np


def convolution_matrix(weight, size, stride, padding):
    """[O·m_h·m_w, I·n_h·n_w]: row (o, i, j) holds w[o, c, t, v] in column (c, s·i + t − p, ...)."""
    outputs, inputs, *kernel = weight.shape
    counts = [
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True)
    ]
    matrix = np.zeros((outputs, *counts, inputs, *size))
    for i in range(counts[0]):
        for t in range(kernel[0]):
            y = stride[0] * i + t - padding[0]
            if not 0 <= y < size[0]:
                continue
            for j in range(counts[1]):
                for v in range(kernel[1]):
                    x = stride[1] * j + v - padding[1]
                    if 0 <= x < size[1]:
                        matrix[:, i, j, :, y, x] = weight[:, :, t, v]
    return matrix.reshape(outputs * counts[0] * counts[1], -1)


def convolution_norm(weight, size, stride, padding):
    """LAPACK's norm of the explicit matrix."""
    exact = np.asarray(weight, dtype=np.float64)
    return float(np.linalg.norm(convolution_matrix(exact, size, stride, padding), 2))


def exact_norm(matrix):
    """mpmath's σ_max at 60 digits, of a small real or complex matrix of floats of any scale."""
    with mpmath.workdps(60):
        rows = [[mpmath.mpmathify(complex(x)) for x in row] for row in matrix]
        largest = max(abs(x) for row in rows for x in row)
        if largest == 0:
            return mpmath.mpf(0)
        scaled = mpmath.matrix([[x / largest for x in row] for row in rows])
        if scaled.rows < scaled.cols:
            scaled = scaled.T
        return max(mpmath.svd_c(scaled, compute_uv=False)) * largest


KINDS = (
    "random",
    "trained",
    "constant",
    "rank-one",
    "alternating",
    "tiny",
    "huge",
    "sparse",
    "positive",
)


def kernel_of(kind, shape, seed):
    """A kernel [O, I, kh, kw] of one of KINDS."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(shape)
    outputs, inputs, high, wide = shape
    if kind == "trained":  # I + β·W/√L, near the identity
        weight = noise * 0.2 / np.sqrt(inputs * high * wide)
        for channel in range(min(outputs, inputs)):
            weight[channel, channel, high // 2, wide // 2] += 1
        return weight
    if kind == "constant":
        return np.full(shape, rng.uniform(0.1, 2))
    if kind == "rank-one":
        factors = [rng.standard_normal(n) for n in shape]
        return np.einsum("o,i,h,w->oihw", *factors)
    if kind == "alternating":
        signs = (-1.0) ** np.add.outer(np.arange(high), np.arange(wide))
        return np.ones((outputs, inputs, 1, 1)) * signs
    if kind == "sparse":
        return noise * (rng.random(shape) < 0.2)
    scale = {"random": 1.0, "tiny": 1e-5, "huge": 1e6, "positive": 1.0}[kind]
    return scale * (np.abs(noise) if kind == "positive" else noise)
