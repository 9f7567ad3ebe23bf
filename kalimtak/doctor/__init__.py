"""`manage.py doctor`: what is wrong with this installation, each fault with its remedy.

`examine` asks one check after another, each within its time, so that nothing that is away can hold it up.
"""

from kalimtak.doctor.diagnosis import Diagnosis, Options
from kalimtak.doctor.examination import CHECKS, examine

__all__ = ["CHECKS", "Diagnosis", "Options", "examine"]
