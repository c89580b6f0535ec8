"""Pictures and summaries of what was done to a scan: files in, self-contained SVG or HTML fragments out."""

from hyperprep.interfaces.reportlets.alignment import BeforeAfter
from hyperprep.interfaces.reportlets.curve import LambdaCurve
from hyperprep.interfaces.reportlets.few_shot import FewShotPanel
from hyperprep.interfaces.reportlets.grid import WarpedGrid
from hyperprep.interfaces.reportlets.jacobian import JacobianMap
from hyperprep.interfaces.reportlets.segmentation import LabelContours
from hyperprep.interfaces.reportlets.session_change import SessionChangeMap
from hyperprep.interfaces.reportlets.slider import LambdaSlider
from hyperprep.interfaces.reportlets.summary import Summary
from hyperprep.interfaces.reportlets.topology import TopologyMap
from hyperprep.interfaces.reportlets.uncertainty import UncertaintyMap

__all__ = [
    "BeforeAfter",
    "FewShotPanel",
    "JacobianMap",
    "LabelContours",
    "LambdaCurve",
    "LambdaSlider",
    "SessionChangeMap",
    "Summary",
    "TopologyMap",
    "UncertaintyMap",
    "WarpedGrid",
]
