"""Quality of fused pictures: the metrics of the field's tables as pure functions, and tables of methods.

``registry.evaluate`` computes all metrics of one picture, ``folder.measure`` those of folders on all cores,
``video`` the metrics of sequences. ``command`` is ``ufuser bench quality``.

The conventions are those of the published tables; each function states its own. These metrics can be gamed: the
pixel-wise maximum of both sources beats published networks on MI and VIF. Report all of them, with the simple
``baselines`` beside the networks.
"""
