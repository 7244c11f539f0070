"""pfmcourse: pretrained foundation models, from Word2Vec to multimodal models, as lessons that run on a laptop.

Importing the package is cheap on purpose: torch and the data packages load with the module that needs them.
With ``PFMCOURSE_OFFLINE=1`` in the environment no Python socket in this process can reach another machine.
"""

from pfmcourse import offline

__version__ = "0.1.0"

offline.guard()
