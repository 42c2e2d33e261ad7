"""Holds FMTDA DualAdapt: Algorithm 1 of Yao et al., "Federated multi-target domain adaptation", WACV 2022, and extras.

`client` holds the algorithm as the registry knows it with its client side (lines 6-12), `server` the server side (lines
3-4 and 13-18), `parameters` its table of settings, `privacy` its uploads under noise. How clients join a federation
under way is `adaptation.newcomers`. Pre-training (line 1) is the workload's, `server.pretraining`.
"""
