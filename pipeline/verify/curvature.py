"""Curvature certificates (CRC; Singla & Feizi 2020) proved again: claims C_ji, then radii.

For a margin f of classes j and i with ∇²f ⪰ −C·I, any point x, any 0 ≤ η < 1/C and the centre x̂,
    d = ½‖x − x̂‖² + η f(x) − ‖x − x̂ + η ∇f(x)‖² / (2(1 − ηC))
is not above ½‖x' − x̂‖² for any x' with f(x') ≤ 0 (strong convexity). So a claimed radius r holds if
some x and η give √(2d) ≥ r + e_0, e_0 the distance of x̂ = fl(v/255) from v/255.

Statement F, a claimed radius s: within s the float64 program errs where f ≤ ρ at most, ρ the
rounding of two logits anywhere within s. With f − ρ for f the same d excludes it: √(2d) ≥ s + e_0.

Notable: the points are this program's own. r is known, so x → x̂ − r·∇f/‖∇f‖ is iterated and d
evaluated at every step, in float64 with all rounding counted, until all other classes are proved:
most are in a step or two. η is where d's derivative is zero (`_best_multiplier`). The certifier
searches without knowing r, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from pipeline.verify.elementary import BENDS, ERROR_UNITS, SLOPES, activate, differentiate
from pipeline.verify.gram import spectral_upper_bounds
from pipeline.verify.head import HeadDistances
from pipeline.verify.layers import Layer
from pipeline.verify.liplt import read_stages
from pipeline.verify.network import Network
from pipeline.verify.outward import GROW, Float64, ceil_float, gamma, norm_upper
from pipeline.verify.refusal import require
from pipeline.verify.rounding import SLACK, UNDERFLOW, UNIT, LayerError
from pipeline.verify.strict_json import Record, numbers

STEPS = 40
CAP = 1 - 1e-3
LONGEST = 4.0
"""Of a step, in units of the residual."""
ROOM = 1e-12
"""Relative room for the few dozen roundings of scalars, 2^-53 each."""


class CurvatureProver:
    """Proves radii of one network.

    Args:
        network: flattening, dense layers with smooth activations, a head.
        margins: `margins` of the certificate.
        advance: told of progress.

    Raises:
        Refusal: another network, or a claim C_ji that cannot be proved.
    """

    def __init__(
        self, network: Network, margins: Record, advance: Callable[[int, int], None]
    ) -> None:
        self._maps, _ = read_stages(network.layers)
        deep = {"terms"} if len(self._maps) > 1 else set()
        margins.only({"method", "curvature"} | deep)
        self._functions = [layer.function for layer in network.layers if layer.kind == "activation"]
        for layer in network.layers:
            require(
                layer.axes is None and layer.kind != "shift",
                f"{layer} is in a network that curvature is not bounded for",
            )
            require(
                layer.kind != "activation" or layer.function in BENDS,
                f"{layer} has no second derivative",
            )
        self._errors = [(LayerError.of(layer), layer.bound) for layer in network.layers]
        self._layers = network.layers
        self._rows, self._bias = network.weight, network.bias
        self._row_norms = norm_upper(network.weight, (1,))
        self._distances = HeadDistances(network.weight).upper
        self._curvature = _read_table(margins, network.num_classes)
        terms = _read_terms(margins, network.num_classes, len(self._maps))
        _prove_table(self._maps, self._functions, network.weight, self._curvature, terms, advance)

    def unproved(
        self,
        images: np.ndarray,
        predict: np.ndarray,
        radius: Float64,
        inner: Float64,
        rounding: Float64,
    ) -> np.ndarray:
        """A class, for each image, against which one of its two radii is not proved; −1 for none.

        Args:
            images: uint8 [n, H, W, C].
            predict: [n], the classes that are claimed to be first.
            radius: [n], positive, of statement R.
            inner: [n], of statement F; 0 claims nothing.
            rounding: [n, K], of the predicted class and each other one anywhere within `inner`.
        """
        x = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float64) / 255.0
        x = x.reshape(len(x), -1)
        shift = _norms(x) * float(UNIT) * (1 + ROOM)
        with np.errstate(over="ignore"):  # claims may be any float: what is infinite is not proved
            wanted, inside = ((claim + shift) * (1 + ROOM) for claim in (radius, inner))
        rows, others = np.nonzero(predict[:, None] != np.arange(len(self._rows)))
        left = np.arange(len(rows))
        point, last, before = x[rows], x[rows], np.zeros((len(rows), x.shape[1]))
        exact, program = np.zeros(len(rows), dtype=bool), (inner == 0)[rows]  # what is proved
        for _ in range(STEPS):
            first, second = predict[rows[left]], others[left]
            value, error, slope, off = self._margin(point, first, second)
            concave = self._curvature[first, second]
            targets, center = (wanted[rows[left]], inside[rows[left]]), x[rows[left]]
            target = np.where(exact[left], targets[1], targets[0])
            loss = rounding[rows[left], second] * (1 + ROOM)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                away = point - center
                for proved, off_by, radii in (
                    (exact, error, targets[0]),
                    (program, error + loss, targets[1]),
                ):
                    best = _best_multiplier(away, value - off_by, slope, concave)
                    found = _dual(away, value, off_by, slope, off, best, concave)
                    proved[left] |= found >= radii
                eta = np.minimum(target / np.sqrt(np.square(slope).sum(1)), CAP / concave)
            eta = np.where(np.isfinite(eta), eta, 0.0)
            residual = away + eta[:, None] * slope
            pace = _fitting_step(point - last, residual - before)
            # As short as the strong convexity of η·f + ½‖x − x̂‖² asks for, at most.
            pace = np.maximum(pace, 1 / (1 + eta * self._curvature[second, first]))
            open_ = ~(exact & program)[left]
            last, before = point[open_], residual[open_]
            point = (point - pace[:, None] * residual)[open_]
            left = left[open_]
            if not len(left):
                break
        failed = np.full(len(x), -1)
        failed[rows[left]] = others[left]
        return failed

    def _margin(
        self, x: Float64, first: np.ndarray, second: np.ndarray
    ) -> tuple[Float64, Float64, Float64, Float64]:
        """Margins [n] at float points, their errors, gradients [n, D], and the errors of these."""
        error = np.zeros(len(x))
        hidden: list[tuple[Layer, Float64, Float64]] = []
        for layer, (constants, bound) in zip(self._layers, self._errors, strict=True):
            if constants is None:
                continue  # flattened already
            own = constants.gamma * (constants.abs_norm * _norms(x) + constants.bias_norm)
            after = (bound * error + own + constants.underflow) * SLACK
            if layer.weight is not None and layer.bias is not None:
                x = x @ layer.weight.T + layer.bias
                hidden.append((layer, x, after))
            else:
                x = activate(layer.function, x)
            error = after
        rows = self._rows[first], self._rows[second]
        scores = [
            np.einsum("nd,nd->n", x, row) + self._bias[each]
            for row, each in zip(rows, (first, second), strict=True)
        ]
        head = ceil_float(gamma(x.shape[1] + 1))
        rounding = sum(
            head * (self._row_norms[each] * _norms(x) + np.abs(self._bias[each])) + UNDERFLOW * 1e6
            for each in (first, second)
        )
        value = scores[0] - scores[1]
        delta = self._distances[first, second] * error + rounding + float(UNIT) * np.abs(value)
        slope, off = self._backwards(rows[0] - rows[1], hidden)
        return value, delta * SLACK, slope, off

    def _backwards(
        self, v: Float64, hidden: list[tuple[Layer, Float64, Float64]]
    ) -> tuple[Float64, Float64]:
        error = float(UNIT) * _norms(v) * SLACK
        for (layer, z, z_error), function in zip(
            reversed(hidden), reversed(self._functions), strict=True
        ):
            assert layer.weight is not None
            constants = LayerError.of(layer)
            assert constants is not None
            bend = float(BENDS[function][1]) * GROW
            bent = bend * z_error + (ERROR_UNITS + 1) * float(UNIT)
            most = float(SLOPES[function][1])
            error = (most * error + bent * _norms(v) + UNDERFLOW * v.shape[1]) * SLACK
            v = v * differentiate(function, z)
            terms = len(layer.weight) + 1
            own = ceil_float(gamma(terms)) * constants.abs_norm * _norms(v) + terms * UNDERFLOW
            error = (layer.bound * error + own) * SLACK
            v = v @ layer.weight
        return v, error


def _best_multiplier(away: Float64, value: Float64, slope: Float64, concave: Float64) -> Float64:
    """The η for which `_dual` is greatest, all but for rounding: any η is allowed there.

    d'(η) = 0 reads ‖slope‖² + 2C·value = ‖slope + C·away‖²/(1 − ηC)².
    """
    root = np.sqrt(np.maximum(np.square(slope).sum(1) + 2 * concave * value, 0.0))
    length = np.sqrt(np.square(slope + concave[:, None] * away).sum(1))
    # (1 − length/root)/C, with the difference of the squares worked out.
    ahead = 2 * (value - (away * slope).sum(1)) - concave * np.square(away).sum(1)
    eta = np.minimum(ahead / (root * (root + length)), CAP / concave)
    return np.where(np.isfinite(eta) & (eta > 0), eta, 0.0)


def _fitting_step(moved: Float64, changed: Float64) -> Float64:
    """How far to go along the residual: where the last move would have made it least, [n].

    1 where nothing has moved yet.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        fitting = (moved * changed).sum(1) / np.square(changed).sum(1)
    return np.where(np.isfinite(fitting) & (fitting > 0), np.minimum(fitting, LONGEST), 1.0)


def _dual(
    away: Float64,
    value: Float64,
    error: Float64,
    slope: Float64,
    off: Float64,
    eta: Float64,
    concave: Float64,
) -> Float64:
    """√(2d) rounded down, [n]; 0 where it proves nothing."""
    step = eta[:, None] * slope
    square = np.square(away).sum(1)
    count = away.shape[1]
    least = square * (1 - 2 * ceil_float(gamma(count + 4))) - count * UNDERFLOW
    uncertain = 4 * float(UNIT) * (_norms(away) + _norms(step)) + eta * off
    length = (_norms(away + step) + uncertain) * (1 + ROOM)
    strength = 1 - eta * concave * (1 + ROOM) - ROOM
    gain, loss = eta * (value - error), length * length / (2 * strength)
    d = least / 2 + gain - loss
    d = d - ROOM * (square + np.abs(gain) + eta * error + loss)
    good = (strength > 0) & (d > 0) & np.isfinite(d)
    return np.where(good, np.sqrt(2 * np.where(good, d, 0.0)) * (1 - ROOM), 0.0)


def _read_table(margins: Record, classes: int) -> Float64:
    """C [K, K] as claimed: finite numbers, not negative."""
    lines = margins.items("curvature")
    require(len(lines) == classes, f"curvature has {len(lines)} rows for {classes} classes")
    table = np.zeros((classes, classes))
    for number, line in enumerate(lines):
        row = numbers(line, classes)
        require(row is not None, f"row {number} of curvature is not {classes} finite numbers")
        table[number] = row
    require(bool((table >= 0).all()), "a curvature is negative")
    return table


def _read_terms(margins: Record, classes: int, layers: int) -> Float64 | None:
    """‖diag(s)·W‖² [K, K, layers] as claimed; None for one hidden layer, which has C alone."""
    if layers == 1:
        return None
    lines = margins.items("terms")
    shape = f"{classes} rows of {classes} lists of {layers} finite numbers"
    require(len(lines) == classes, f"terms are not {shape}")
    terms = np.zeros((classes, classes, layers))
    for number, line in enumerate(lines):
        require(isinstance(line, list) and len(line) == classes, f"terms are not {shape}")
        for column, each in enumerate(line):
            row = numbers(each, layers)
            require(row is not None, f"terms are not {shape}")
            terms[number, column] = row
    require(bool((terms >= 0).all()), "a term is negative")
    return terms


def _prove_table(
    maps: list[Layer],
    functions: list[str],
    rows: Float64,
    claims: Float64,
    terms: Float64 | None,
    advance: Callable[[int, int], None],
) -> None:
    """∇²(f_j − f_i) ⪰ −Σ_I ‖diag(s^(I))·W^(I)‖²·(Π_{k<I} g‖W^(k)‖)², and that not below −C_ji."""
    classes = len(rows)
    pairs = [(j, i) for j in range(classes) for i in range(classes) if i != j]
    steep = [Fraction(1)]  # squares, rounded up: exact fractions grow with every layer
    for layer, function in zip(maps[:-1], functions[:-1], strict=True):
        factor = SLOPES[function][1] * Fraction(layer.bound)
        square = ceil_float(steep[-1] * factor**2)
        require(math.isfinite(square), "the product of the layers' bounds is out of range")
        steep.append(Fraction(square))
    for done, (first, second) in enumerate(pairs):
        difference = rows[first] - rows[second]  # rounded once; GROW covers it
        claim = Fraction(float(claims[first, second]))
        parts = [float(claim)] if terms is None else [float(x) for x in terms[first, second]]
        total = sum(
            (Fraction(part) * each for part, each in zip(parts, steep, strict=True)), Fraction(0)
        )
        require(
            total <= claim and _terms_hold(maps, functions, difference, parts),
            f"the curvature of classes {first} and {second}, {float(claim)!r}, cannot be proved",
        )
        advance(done + 1, len(pairs))


def _terms_hold(
    maps: list[Layer], functions: list[str], difference: Float64, parts: list[float]
) -> bool:
    """‖diag(s)·W‖² ≤ its claim for each layer, s² ≥ max(h_U·fall, −h_L·rise) behind it.

    The gradient of the margin there lies between −fall and rise: w_j − w_i behind the last layer,
    and in front of a layer, as 0 ≤ σ' ≤ g, at most g times the sum of its entries' best parts.
    """
    rise, fall = np.where(difference > 0, difference, 0.0), np.where(difference < 0, -difference, 0)
    rise, fall = rise * GROW, fall * GROW
    for number in reversed(range(len(maps))):
        layer, function = maps[number], functions[number]
        assert layer.weight is not None
        low, high = (float(bend) * GROW for bend in BENDS[function])
        squares = np.maximum(high * fall, -low * rise) * GROW
        if not _scaled_norm_holds(layer.weight, squares, parts[number]):
            return False
        if not number:
            break
        size, most = len(layer.weight), float(SLOPES[function][1]) * GROW
        grow = ceil_float(1 + 2 * gamma(2 * size + 2)) * GROW
        best, least = layer.weight.clip(min=0.0), (-layer.weight).clip(min=0.0)
        rise, fall = (
            ((above @ best + below @ least) * most) * grow + 2 * size * UNDERFLOW
            for above, below in ((rise, fall), (fall, rise))
        )
    return True


def _scaled_norm_holds(weight: Float64, squares: Float64, claim: float) -> bool:
    """‖diag(s)·W‖² ≤ claim, s² ≥ squares."""
    scales = np.nextafter(np.sqrt(squares).astype(np.float32), np.float32(np.inf))
    scales = np.where(squares > 0, scales, np.float32(0)).astype(np.float64)
    require(bool((scales * scales >= squares).all()), "a square root is rounded wrongly")  # exact
    if not scales.any():
        return True
    matrix = scales[:, None] * weight  # of two float32 numbers: exact
    if not matrix.any():
        return True
    matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    target = math.sqrt(claim) * (1 - 2.0**-47)
    bound = spectral_upper_bounds(np.ascontiguousarray(matrix)[None, None], target)[0]
    return bool(bound <= target) and Fraction(float(bound)) ** 2 <= Fraction(claim)


def _norms(x: Float64) -> Float64:
    """[n, D] -> upper bounds of the norms [n]."""
    return norm_upper(x, (1,))
