"""FedAvg with self-training: clients train G and F on confident pseudo-labels, Flower's own FedAvg averages them.

McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017, on
pseudo-labels (Lee, "Pseudo-label", 2013). The client's side is `clients.self_training`.
"""

from flwr.serverapp.strategy import FedAvg


class FedAvgSelfTraining(FedAvg):
    """Flower's FedAvg as it is, for federations of any size, with this project's record names."""

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, arrayrecord_key="model")
