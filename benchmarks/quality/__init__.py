"""Quality of fused pictures: the metrics of the field's tables as pure functions, and tables of methods.

``registry.evaluate`` gives all metrics of one picture, ``folder.measure`` those of folders on all cores,
``video`` the metrics of sequences, ``command`` is ``ufuser bench quality``.

The conventions are those under which the published tables were made; each function names its own. These
metrics can be gamed: the pixel-wise maximum of the two sources beats published networks on MI and VIF. Report
all of them, with the simple ``baselines`` beside the networks.
"""
