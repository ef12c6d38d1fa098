"""The methods that a model draws a set by, beside its own way."""

from hieramp.distillation.methods.cao2 import CaO2
from hieramp.distillation.methods.d3hr import D3HR
from hieramp.distillation.methods.d4m import D4M
from hieramp.distillation.methods.method import Method
from hieramp.distillation.methods.mgd3 import MGD3
from hieramp.distillation.methods.minimax import Minimax

METHODS: dict[str, type[Method]] = {method.name: method for method in (MGD3, D4M, D3HR, CaO2, Minimax)}
