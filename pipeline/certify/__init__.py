"""Certification: a radius for every image, and the certificate directory."""

from pipeline.certify.again import certify_again
from pipeline.certify.certificate import Certificate, load_network, read_certificate
from pipeline.certify.lipschitz_certifier import LipschitzCertifier, certifier
from pipeline.certify.verdicts import Verdicts
from pipeline.certify.whole_set import certify

__all__ = [
    "Certificate",
    "LipschitzCertifier",
    "Verdicts",
    "certifier",
    "certify",
    "certify_again",
    "load_network",
    "read_certificate",
]
