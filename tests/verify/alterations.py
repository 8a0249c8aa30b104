"""Ways to alter a certificate, each with the sentence that it must be refused with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tests.verify.mini import Mini, layer

Alteration = Callable[[Mini], None]


def name_of(case: object) -> str:
    return getattr(case, "__name__", "")


def record(mini: Mini, name: str) -> dict:
    return next(found for found in mini.certificate["layers"] if found["name"] == name)


def nearest_up(x: float) -> float:
    return math.nextafter(x, math.inf)


def bound_lowered(mini: Mini) -> None:
    record(mini, "stem")["bound"] *= 1 - 3e-6


def bound_lowered_dense(mini: Mini) -> None:
    record(mini, "dense")["bound"] *= 1 - 3e-6


def bound_lowered_strided(mini: Mini) -> None:
    record(mini, "down")["bound"] *= 1 - 3e-6


def bound_raised(mini: Mini) -> None:
    record(mini, "stem")["bound"] *= 1.5


def bound_of_minmax_lowered(mini: Mini) -> None:
    record(mini, "act1")["bound"] = 0.5


def product_lowered(mini: Mini) -> None:
    mini.certificate["lipschitz_bound"] *= 1 - 1e-9


def weight_changed(mini: Mini) -> None:
    mini.tensors["stem.weight"] *= np.float32(1.01)


def weight_not_finite(mini: Mini) -> None:
    mini.tensors["down.bias"][3] = np.nan


def head_row_scaled(mini: Mini) -> None:
    mini.tensors["head.weight"][2] *= 3
    mini.certificate["head"]["max_margin_lipschitz"] = 1.0


def head_row_scaled_everywhere(mini: Mini) -> None:
    mini.tensors["head.weight"][2] *= 3
    rows = mini.tensors["head.weight"].astype(float)
    largest = max(np.linalg.norm(a - b) for a in rows for b in rows)
    bound = mini.certificate["lipschitz_bound"]
    mini.certificate["head"]["max_margin_lipschitz"] = bound * largest * (1 + 1e-12)


def extra_tensor(mini: Mini) -> None:
    mini.tensors["ghost.weight"] = np.zeros((2, 2), np.float32)


def tensor_missing(mini: Mini) -> None:
    del mini.tensors["dense.bias"]


def tensor_float64(mini: Mini) -> None:
    mini.tensors["dense.bias"] = mini.tensors["dense.bias"].astype(np.float64)


def tensor_shared(mini: Mini) -> None:
    mini.certificate["head"]["bias"] = "dense.bias"


def layer_removed(mini: Mini) -> None:
    mini.certificate["layers"].remove(record(mini, "down"))


def activation_removed(mini: Mini) -> None:
    mini.certificate["layers"].remove(record(mini, "act2"))


def layer_added(mini: Mini) -> None:
    """A shift moves no norm and no shape; only the logits show it."""
    mini.certificate["layers"].append(layer("shift2", "shift", [12], {"center": 0.1}, 1.0))


def layer_doubled(mini: Mini) -> None:
    mini.certificate["layers"].append(record(mini, "act2"))


def bound_negative(mini: Mini) -> None:
    record(mini, "stem")["bound"] *= -1


def bias_too_long(mini: Mini) -> None:
    mini.tensors["stem.bias"] = np.zeros(9, np.float32)


def dense_bias_too_long(mini: Mini) -> None:
    mini.tensors["dense.bias"] = np.zeros(13, np.float32)


def kernel_too_large(mini: Mini) -> None:
    mini.tensors["down.weight"] = np.ones((8, 8, 9, 9), np.float32)


def stride_changed(mini: Mini) -> None:
    record(mini, "down")["attributes"]["stride"] = 1


def padding_changed(mini: Mini) -> None:
    record(mini, "stem")["attributes"]["padding"] = 0


def dilation_added(mini: Mini) -> None:
    record(mini, "stem")["attributes"]["dilation"] = 2


def kind_renamed(mini: Mini) -> None:
    record(mini, "act1")["kind"] = "maxmin"


def center_moved(mini: Mini) -> None:
    record(mini, "shift")["attributes"]["center"] = 0.25


def radius_raised(mini: Mini) -> None:
    row = mini.correct_row()
    radius = float(mini.rows[row]["radius"])
    mini.set_row(row, radius=radius * (1 + 1e-15))


def radius_raised_by_some_ulp(mini: Mini) -> None:
    row = mini.correct_row()
    radius = float(mini.rows[row]["radius"])
    for _ in range(6):
        radius = nearest_up(radius)
    mini.set_row(row, radius=radius)


def radius_lowered(mini: Mini) -> None:
    row = mini.correct_row()
    mini.set_row(row, radius=float(mini.rows[row]["radius"]) * 0.999)
    mini.recount()


def radius_infinite(mini: Mini) -> None:
    mini.set_row(mini.correct_row(), radius="inf")


def radius_of_a_wrong_row(mini: Mini) -> None:
    row = next(n for n, row in enumerate(mini.rows) if row["correct"] == "0")
    mini.follow(row)
    mini.recount()


def wrong_row_marked_correct(mini: Mini) -> None:
    row = next(n for n, row in enumerate(mini.rows) if row["correct"] == "0")
    mini.set_row(row, correct=1)
    mini.follow(row)
    mini.recount()


def correct_row_marked_wrong(mini: Mini) -> None:
    mini.set_row(mini.correct_row(), correct=0, radius=0)
    mini.recount()


def tie_certified(mini: Mini) -> None:
    row = mini.correct_row()
    mini.set_row(row, margin=0, radius=0)


def radius_float_raised(mini: Mini) -> None:
    row = mini.correct_row()
    mini.set_row(row, radius_float=math.nextafter(float(mini.rows[row]["radius"]), math.inf))
    mini.recount()


def radius_float_of_a_wrong_row(mini: Mini) -> None:
    row = next(n for n, row in enumerate(mini.rows) if row["correct"] == "0")
    mini.set_row(row, radius_float=0.01)


def radius_float_negative(mini: Mini) -> None:
    mini.set_row(2, radius_float=-1.0)


def total_float_raised(mini: Mini) -> None:
    mini.certificate["vra_float"]["4/255"] += 1 / 40


def claim_float_changed(mini: Mini) -> None:
    mini.certificate["claim_float"] = "The float32 program is right too."


def flag_is_a_number(mini: Mini) -> None:
    mini.certificate["tight"] = 1


def constant_lowered(mini: Mini) -> None:
    row = mini.correct_row()
    mini.set_row(row, lipschitz=float(mini.rows[row]["lipschitz"]) * (1 - 1e-9))
    mini.follow(row)
    mini.recount()


def binding_is_predicted(mini: Mini) -> None:
    row = mini.correct_row()
    mini.set_row(row, binding=mini.rows[row]["predict"])


def delta_lowered(mini: Mini) -> None:
    row = mini.correct_row()
    mini.set_row(row, delta=0)


def margin_raised(mini: Mini) -> None:
    row = mini.correct_row()
    mini.set_row(row, margin=float(mini.rows[row]["margin"]) * 1.1)


def row_dropped(mini: Mini) -> None:
    del mini.rows[7]
    mini.recount()


def last_row_dropped(mini: Mini) -> None:
    del mini.rows[-1]
    mini.recount()


def row_doubled(mini: Mini) -> None:
    mini.rows.insert(7, mini.rows[7])
    mini.recount()


def last_row_doubled_as_new(mini: Mini) -> None:
    mini.rows.append({**mini.rows[-1], "idx": str(len(mini.rows))})
    mini.recount()


def rows_swapped(mini: Mini) -> None:
    mini.rows[3], mini.rows[4] = mini.rows[4], mini.rows[3]


def total_raised(mini: Mini) -> None:
    mini.certificate["vra"]["4/255"] += 1 / len(mini.rows)


def total_off_by_an_ulp(mini: Mini) -> None:
    mini.certificate["clean_accuracy"] = nearest_up(mini.certificate["clean_accuracy"])


def epsilon_added(mini: Mini) -> None:
    mini.certificate["epsilons"].append("8/255")


def epsilon_renamed(mini: Mini) -> None:
    mini.certificate["epsilons"][0] = "6/255"
    for key in ("vra", "vra_float", "vra_unsound"):
        mini.certificate[key]["6/255"] = mini.certificate[key].pop("4/255")


def epsilon_doubled(mini: Mini) -> None:
    mini.certificate["epsilons"].append("4/255")


def unsound_out_of_range(mini: Mini) -> None:
    mini.certificate["vra_unsound"]["4/255"] = 1.5


def space_changed(mini: Mini) -> None:
    mini.certificate["input"]["space"] = "v/127.5 - 1"


def claim_changed(mini: Mini) -> None:
    mini.certificate["claim"] = "No attack of any kind succeeds."


def input_key_added(mini: Mini) -> None:
    mini.certificate["input"]["std"] = 0.25


def dataset_key_added(mini: Mini) -> None:
    mini.certificate["dataset"]["also_holds_for"] = "ImageNet"


def input_shape_changed(mini: Mini) -> None:
    mini.certificate["input"]["shape"] = [1, 8, 9]


def key_missing(mini: Mini) -> None:
    del mini.certificate["vra_unsound"]


def key_added(mini: Mini) -> None:
    mini.certificate["also_robust_to"] = "linf"


def format_changed(mini: Mini) -> None:
    mini.certificate["format"] = "certline certificate 3"


def count_is_text(mini: Mini) -> None:
    mini.certificate["num_images"] = "40"


def images_counted_down(mini: Mini) -> None:
    mini.certificate["num_images"] = mini.certificate["dataset"]["num_samples"] = 39


def largest_constant_lowered(mini: Mini) -> None:
    mini.certificate["head"]["max_margin_lipschitz"] *= 0.9


def extra_column(mini: Mini) -> None:
    mini.rows[2]["delta"] += "\t0"


def number_in_hexadecimal(mini: Mini) -> None:
    mini.rows[2]["margin"] = float(mini.rows[2]["margin"]).hex()


def number_not_a_number(mini: Mini) -> None:
    mini.set_row(mini.correct_row(), margin="nan")


def number_with_underscore(mini: Mini) -> None:
    mini.rows[2]["label"] = "1_0"


def number_with_a_point_too_many(mini: Mini) -> None:
    mini.rows[2]["delta"] = "1.2.3"


def number_with_more_digits(mini: Mini) -> None:
    mini.rows[2]["margin"] += "1"


def class_out_of_range(mini: Mini) -> None:
    mini.rows[2]["binding"] = "5"


def index_with_zero(mini: Mini) -> None:
    mini.rows[2]["idx"] = "02"


def blank_line(mini: Mini) -> None:
    mini.extra_lines.append("")


WITHOUT_DATA: list[tuple[Alteration, str]] = [
    (bound_lowered, r"layer 'stem' \(conv2d\) claims the bound .* can be proved"),
    (bound_lowered_dense, r"layer 'dense' \(dense\) claims the bound .* can be proved"),
    (bound_lowered_strided, r"layer 'down' \(conv2d\) claims the bound .* can be proved"),
    (bound_raised, r"lipschitz_bound .* is below the product"),
    (bound_of_minmax_lowered, r"layer 'act1' \(minmax\) claims the bound 0\.5"),
    (product_lowered, r"lipschitz_bound .* is below the product"),
    (weight_changed, r"layer 'stem' \(conv2d\) claims the bound"),
    (weight_not_finite, r"tensor 'down\.bias' has a value that is not finite"),
    (head_row_scaled, r"max_margin_lipschitz 1\.0 is not between"),
    (head_row_scaled_everywhere, r"image \d+ has the constant .*, below the Lipschitz bound times"),
    (extra_tensor, r"tensor 'ghost\.weight' is used by no layer"),
    (tensor_missing, r"has no tensor 'dense\.bias'"),
    (tensor_float64, r"tensor 'dense\.bias' is 'F64', not float32"),
    (tensor_shared, r"tensor 'dense\.bias' is used by two layers"),
    (layer_removed, r"layer 'flat' \(flatten\) takes inputs of shape \[8, 4, 4\], but is given"),
    (layer_doubled, r"two layers have the name 'act2'"),
    (bound_negative, r"layer 'stem' claims the bound .*, which is negative"),
    (bias_too_long, r"layer 'stem': input .* and bias \[9\] do not fit"),
    (dense_bias_too_long, r"layer 'dense': input .* and bias \[13\] do not fit"),
    (kernel_too_large, r"layer 'down': its kernel does not fit into its input"),
    (stride_changed, r"layer 'flat' \(flatten\) takes inputs of shape"),
    (padding_changed, r"layer 'act1' \(minmax\) takes inputs of shape"),
    (dilation_added, r"layer 'stem': attributes has the unknown key 'dilation'"),
    (kind_renamed, r"layer 'act1' is of the unknown kind 'maxmin'"),
    (radius_raised, r"image \d+ has the radius .*, which does not follow"),
    (radius_raised_by_some_ulp, r"image \d+ has the radius .*, which does not follow"),
    (radius_lowered, r"image \d+ has the radius .*, which does not follow"),
    (radius_infinite, r"image \d+ has the radius inf, which does not follow"),
    (radius_of_a_wrong_row, r"image \d+ is not correct but has the radius"),
    (wrong_row_marked_correct, r"image \d+ is marked correct though it predicts another class"),
    (correct_row_marked_wrong, r"image \d+ is marked incorrect though its label is strictly first"),
    (tie_certified, r"image \d+ is marked correct though no class is strictly first"),
    (radius_float_raised, r"image \d+ has the radius_float .*, larger than its radius"),
    (radius_float_of_a_wrong_row, r"image \d+ has the radius_float .*, larger than its radius"),
    (radius_float_negative, r"line 4: radius_float -1\.0 is not a radius"),
    (total_float_raised, r"vra_float: '4/255' is .*, the rows give"),
    (claim_float_changed, r"the claim_float 'The float32 program is right too\.' is not"),
    (flag_is_a_number, r"certificate\.json: 'tight' is not true or false"),
    (constant_lowered, r"image \d+ has the constant .*, below the Lipschitz bound times"),
    (binding_is_predicted, r"image \d+ names its predicted class as binding"),
    (delta_lowered, r"image \d+ has the radius .*, which does not follow"),
    (margin_raised, r"image \d+ has the radius .*, which does not follow"),
    (row_dropped, r"has image 8 where image 7 must stand"),
    (last_row_dropped, r"has 39 rows, num_images is 40"),
    (row_doubled, r"has image 7 where image 8 must stand"),
    (last_row_doubled_as_new, r"more than the 40 rows of num_images"),
    (rows_swapped, r"has image 4 where image 3 must stand"),
    (total_raised, r"vra: '4/255' is .*, the rows give"),
    (total_off_by_an_ulp, r"'clean_accuracy' is .*, the rows give"),
    (epsilon_added, r"vra is for other epsilons than the list"),
    (epsilon_renamed, r"vra: '6/255' is .*, the rows give"),
    (epsilon_doubled, r"list of epsilons is empty or names one twice"),
    (unsound_out_of_range, r"vra_unsound: '4/255' is not between 0 and 1"),
    (space_changed, r"the input space 'v/127\.5 - 1' is not the one"),
    (claim_changed, r"the claim 'No attack of any kind succeeds\.' is not"),
    (input_key_added, r"input has the unknown key 'std'"),
    (dataset_key_added, r"dataset has the unknown key 'also_holds_for'"),
    (input_shape_changed, r"layer 'shift' \(shift\) takes inputs of shape"),
    (key_missing, r"certificate\.json has no 'vra_unsound'"),
    (key_added, r"certificate\.json has the unknown key 'also_robust_to'"),
    (format_changed, r"the format 'certline certificate 3' is not"),
    (count_is_text, r"'num_images' is not an integer"),
    (images_counted_down, r"more than the 39 rows of num_images"),
    (largest_constant_lowered, r"max_margin_lipschitz .* is not between"),
    (extra_column, r"line 4 has 12 columns, not 11"),
    (number_in_hexadecimal, r"line 4: margin .* is not a number with 17 significant digits"),
    (number_not_a_number, r"image \d+ is marked correct though no class is strictly first"),
    (number_with_underscore, r"line 4: label '1_0' is not an integer"),
    (number_with_a_point_too_many, r"line 4: delta '1\.2\.3' is not a number"),
    (number_with_more_digits, r"line 4: margin .* is not a number with 17 significant digits"),
    (class_out_of_range, r"line 4: binding 5 is outside the 5 classes"),
    (index_with_zero, r"line 4: idx '02' is not an integer"),
    (blank_line, r"line 42 has 1 columns, not 11"),
]


def label_changed(mini: Mini) -> None:
    """A misclassified image declared to be of the class that is predicted."""
    row = next(n for n, row in enumerate(mini.rows) if row["correct"] == "0")
    mini.set_row(row, label=mini.rows[row]["predict"], correct=1)
    mini.follow(row)
    mini.recount()


def margin_raised_everywhere(mini: Mini) -> None:
    row = mini.correct_row()
    mini.set_row(row, margin=float(mini.rows[row]["margin"]) * 1.1)
    mini.follow(row)
    mini.recount()


def delta_lowered_everywhere(mini: Mini) -> None:
    row = mini.correct_row()
    mini.set_row(row, delta=float(mini.rows[row]["delta"]) * 0.5)
    mini.follow(row)
    mini.recount()


def another_class_binding(mini: Mini) -> None:
    """A class further off, its row consistent: without the data nobody can know."""
    logits = mini.logits
    weight = mini.tensors["head.weight"].astype(float)
    row = mini.correct_row()
    j, i = (int(mini.rows[row][key]) for key in ("predict", "binding"))
    other = min(set(range(len(weight))) - {j, i}, key=lambda c: logits[row, c])
    distance = float(np.linalg.norm(weight[j] - weight[other]))
    mini.set_row(
        row,
        binding=other,
        margin=float(logits[row, j] - logits[row, other]),
        lipschitz=mini.certificate["lipschitz_bound"] * distance * (1 + 1e-12),
        delta=float(mini.rows[row]["delta"]) * 10,
    )
    mini.follow(row)
    mini.recount()


def bias_changed(mini: Mini) -> None:
    """Biases do not enter norms: only the logits show it."""
    mini.tensors["stem.bias"] += np.float32(0.01)


WITH_DATA: list[tuple[Alteration, str]] = [
    (label_changed, r"image \d+ has the label \d, the data says \d"),
    (margin_raised_everywhere, r"image \d+ has the margin .*, recomputed it is"),
    (delta_lowered_everywhere, r"image \d+ has the delta .*, but its rounding is only bounded by"),
    (another_class_binding, r"image \d+ has the radius .*, but class \d is nearer than that"),
    (bias_changed, r"image \d+ (has the margin|is said to be class)"),
    (activation_removed, r"image \d+ (has the margin|is said to be class)"),
    (layer_added, r"image \d+ (has the margin|is said to be class)"),
    (center_moved, r"image \d+ (has the margin|is said to be class)"),
]
