"""The independent check of a certificate, for somebody who does not trust the rest of this project.

Notable: imports NumPy, mpmath and the standard library, nothing else of `pipeline` and no torch; no
code and no method is shared with certification. Norms: Gram iteration here, Cholesky there.
Read first: inspection.py (the order of the checks), gram.py, torus.py, logits.py.
"""

from pipeline.verify.inspection import verify_certificate
from pipeline.verify.verdict import Verdict

__all__ = ["Verdict", "verify_certificate"]
