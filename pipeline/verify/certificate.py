"""certificate.json: every key must be there, be understood and have its type.

Notable: an unknown key is refused too. A certificate says only what this program understands.
"""

from __future__ import annotations

from pipeline.verify.directory import CERTIFICATE
from pipeline.verify.refusal import quote, require
from pipeline.verify.strict_json import Record, parse

FORMAT = "certline certificate 2"
STATEMENT = "R and F"
CLAIM = (
    "For every image with radius > 0 and every point x' with ||x' - x||_2 < radius, x being the "
    "exact rational v/255, the exact real function of the tensors in model.safetensors ranks the "
    "image's label strictly first at x'."
)
CLAIM_FLOAT = (
    "For every image with radius_float > 0 and every float64 vector x' with ||x' - x||_2 < "
    "radius_float, evaluating that function at x' in IEEE float64 gives the image's label a logit "
    "strictly greater than every other, every dot product and its bias being summed in any order, "
    "fused or not, and in another order at another point, and every softplus, sigmoid or tanh z "
    "being computed within 2^-45 max(1, |z|)."
)
SPACE = "v/255, v in 0..255; l2 over all channels and pixels"
MOST_IMAGES, MOST_CLASSES = 10**7, 2**14
MARGIN_METHODS = ("liplt", "curvature")
TEXTS = ("format", "statement", "claim", "claim_float", "device")
NUMBERS = ("clean_accuracy", "lipschitz_bound", "lipschitz_unsound")
COUNTS = ("num_images", "num_classes")
DIGESTS = ("weights_sha256", "dataset_sha256")
LISTS = ("class_names", "epsilons", "layers")
FLAGS = ("tight",)
OBJECTS = (
    "vra",
    "vra_float",
    "vra_unsound",
    "input",
    "head",
    "model",
    "dataset",
    "files",
    "versions",
    "seconds",
)


def read_certificate(content: bytes) -> Record:
    """The parsed file, its keys and types checked; what the values mean is for other modules.

    Raises:
        Refusal: naming the key.
    """
    record = Record(parse(content, CERTIFICATE), CERTIFICATE)
    for read, keys in (
        (record.text, TEXTS),
        (record.number, NUMBERS),
        (record.count, COUNTS),
        (record.digest, DIGESTS),
        (record.items, LISTS),
        (record.flag, FLAGS),
        (record.record, OBJECTS),
    ):
        for key in keys:
            read(key)
    optional = {"margins"} & set(record.values)
    record.only({*TEXTS, *NUMBERS, *COUNTS, *DIGESTS, *LISTS, *FLAGS, *OBJECTS, *optional})
    for key, expected in (
        ("format", FORMAT),
        ("statement", STATEMENT),
        ("claim", CLAIM),
        ("claim_float", CLAIM_FLOAT),
    ):
        found = record.text(key)
        require(found == expected, f"the {key} {quote(found)} is not {quote(expected)}")
    record.record("input").only({"shape", "space"})
    record.record("dataset").only({"spec", "num_samples", "classes"})
    space = record.record("input").text("space")
    require(space == SPACE, f"the input space {quote(space)} is not the one that is checked")
    count, samples = (
        record.count("num_images", 1, MOST_IMAGES),
        record.record("dataset").count("num_samples"),
    )
    require(samples == count, f"num_images is {count}, but the data set has {samples} samples")
    classes, names = record.count("num_classes", 2, MOST_CLASSES), record.texts("class_names")
    require(len(names) == classes, f"there are {len(names)} class names for {classes} classes")
    chosen = chosen_classes(record)
    require(
        chosen is None or (len(set(chosen)) == len(chosen) <= classes),
        "the classes chosen from the data set repeat, or are more than the model has",
    )
    require(len(record.items("layers")) > 0, f"{CERTIFICATE} has no layers")
    return record


def margin_method(record: Record) -> str:
    """How margins are proved: "product" unless the certificate says otherwise.

    Raises:
        Refusal: a method that is not known.
    """
    if "margins" not in record.values:
        return "product"
    method = record.record("margins").text("method")
    require(method in MARGIN_METHODS, f"margins are proved by {quote(method)}, which is unknown")
    return method


def chosen_classes(record: Record) -> list[int] | None:
    """The classes that the certificate speaks of, None for all of the data set.

    They are labels in the whole data set, in the order of the certificate's own labels.
    """
    dataset = record.record("dataset")
    return dataset.integers("classes", 0, MOST_CLASSES) if "classes" in dataset.values else None
